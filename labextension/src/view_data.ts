/** What an output says of its view: data of a notebook, which may come from anybody. */
export interface IView {
  view: string;
  run?: string;
  home?: string;
  state?: string;
  step?: number;
  /** The texts of a form, without those of the run that it has started. */
  form?: { html: string; plain: string };
}

/** A run's id, see `llf_core/runs/folder.py`. */
const RUN = /^[a-z0-9][a-z0-9._-]{0,127}$/;

/** What is good of an output's data; of a run only an id that can be one, and with it the home that it lies in. */
export function readView(data: unknown): IView {
  const told = (
    typeof data === 'object' && data !== null ? data : {}
  ) as Record<string, unknown>;
  const { view, run, home, state, step } = told;
  const { html, plain } = (told.form ?? {}) as Record<string, unknown>;
  const found: IView = { view: typeof view === 'string' ? view : '' };
  if (typeof run === 'string' && RUN.test(run) && typeof home === 'string') {
    found.run = run;
    found.home = home;
  }
  if (typeof state === 'string') {
    found.state = state;
  }
  if (typeof step === 'number') {
    found.step = step;
  }
  if (typeof html === 'string' && typeof plain === 'string') {
    found.form = { html, plain };
  }
  return found;
}
