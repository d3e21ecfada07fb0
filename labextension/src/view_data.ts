/** MIME type of an LLF view in a cell output; `llf_widgets/view_files.py` writes it. */
export const VIEW_MIME_TYPE = 'application/vnd.llf.view+json';

/** Data of an LLF view in a cell output. A notebook may come from anybody, so nothing in it is trusted. */
export interface IViewData {
  view: string;
  run?: string;
  home?: string;
  state?: string;
  step?: number;
  /** Texts of a form, without those of the run that it started. */
  form?: { html: string; plain: string };
}

/** Pattern of run ids, as in `llf_core/runs/folder.py`. */
const RUN_ID = /^[a-z0-9][a-z0-9._-]{0,127}$/;

/** Returns the valid fields of an output's data and drops the others. `run` and `home` are set together or not at all. */
export function parseViewData(data: unknown): IViewData {
  const raw = (typeof data === 'object' && data !== null ? data : {}) as Record<
    string,
    unknown
  >;
  const { view, run, home, state, step } = raw;
  const { html, plain } = (raw.form ?? {}) as Record<string, unknown>;
  const parsed: IViewData = { view: typeof view === 'string' ? view : '' };
  if (typeof run === 'string' && RUN_ID.test(run) && typeof home === 'string') {
    parsed.run = run;
    parsed.home = home;
  }
  if (typeof state === 'string') {
    parsed.state = state;
  }
  if (typeof step === 'number') {
    parsed.step = step;
  }
  if (typeof html === 'string' && typeof plain === 'string') {
    parsed.form = { html, plain };
  }
  return parsed;
}
