// Browser features that JupyterLab's packages need and jsdom lacks.
class Absent {}
Object.assign(globalThis, {
  DragEvent: globalThis.DragEvent ?? Absent,
  ResizeObserver: globalThis.ResizeObserver ?? Absent,
  matchMedia: globalThis.matchMedia ?? (() => ({ matches: false })),
  IS_REACT_ACT_ENVIRONMENT: true
});

// JupyterLab's dialogs draw their titles in an idle callback, which jsdom lacks.
globalThis.requestIdleCallback ??= (callback: () => void): number =>
  setTimeout(callback) as unknown as number;
