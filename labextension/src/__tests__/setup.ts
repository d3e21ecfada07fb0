import { vi } from 'vitest';

// A second, which is vitest's own, can pass on a machine that others use before the page has done anything.
const waitFor = vi.waitFor.bind(vi);
vi.waitFor = (callback, options = 60_000) => waitFor(callback, options);

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
