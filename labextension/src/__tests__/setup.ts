// What JupyterLab's packages expect of a browser and jsdom does not have.
class Absent {}
Object.assign(globalThis, {
  DragEvent: globalThis.DragEvent ?? Absent,
  ResizeObserver: globalThis.ResizeObserver ?? Absent,
  matchMedia: globalThis.matchMedia ?? (() => ({ matches: false })),
  IS_REACT_ACT_ENVIRONMENT: true
});

// Dialogs of JupyterLab draw their titles when the page is idle, of which jsdom knows nothing.
globalThis.requestIdleCallback ??= (callback: () => void): number =>
  setTimeout(callback) as unknown as number;
