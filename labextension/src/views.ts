import type {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { Panel, Widget } from '@lumino/widgets';

import { Api } from './api';
import { runInCell } from './notebook';
import { readView, type IView } from './view_data';

/** What a view of LLF is called among the MIME types of an output, see `llf_widgets/saved_notebook.py`. */
export const VIEW = 'application/vnd.llf.view+json';
const WIDGET = 'application/vnd.jupyter.widget-view+json';
const BEFORE_WIDGETS = -20; // ipywidgets' own renderer has -10
const STATIC_AFTER = 400; // ms without a live view until the saved text is shown in its place
const FACTORY_EVERY = 300; // ms between two looks whether ipywidgets has come
const RETRY = 3000; // ms between two tries to reach the server
const KEEP_EVERY = 30_000; // ms between two times that a live run's text in the notebook is brought up to date

type Registry = NotebookPanel['content']['rendermime'];
type Renderer = ReturnType<Registry['createRenderer']>;
type MimeModel = Parameters<Renderer['renderModel']>[0];

/** What a monitor knows of its run: the part `head`. */
interface IHead {
  state?: string;
  step?: number;
  live?: boolean;
}

/** What a monitor tells whoever holds it, also one that a form has started. */
interface IHeadNews {
  run: string;
  head: IHead;
}

/** What a page offers to a view. */
interface IHost {
  runCell: (code: string) => Promise<unknown>;
}

/** The front end of a monitor, `widgets/monitor/view.js`. */
interface IFrontEnd {
  render(context: {
    el: HTMLElement;
    run: string;
    home: string;
    page: IHost;
  }): () => void;
}

/** Everything that the views of one page share. */
interface IPage {
  app: JupyterFrontEnd;
  tracker: INotebookTracker;
  api: Api;
  frontEnd: () => Promise<IFrontEnd>;
}

/** Draws the views of LLF in notebooks: a run's monitor from the server, other views from their kernel, else the text. */
export const views: JupyterFrontEndPlugin<void> = {
  id: 'llf-labextension:views',
  description:
    'Draws the views of LLF in notebooks, with and without a kernel.',
  autoStart: true,
  requires: [INotebookTracker],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker) => {
    const api = new Api(app.serviceManager.serverSettings);
    let module: Promise<IFrontEnd> | null = null;
    const page: IPage = {
      app,
      tracker,
      api,
      frontEnd: () => {
        module ??= load(api).catch((error: unknown) => {
          module = null; // the next view tries again
          throw error;
        });
        return module;
      }
    };
    const addTo = (panel: NotebookPanel): void => {
      const { rendermime } = panel.content;
      rendermime.addFactory(
        {
          safe: true, // texts are set as texts; what is HTML goes through Jupyter's own sanitizer
          mimeTypes: [VIEW],
          createRenderer: () => new SavedView(page, panel)
        },
        BEFORE_WIDGETS
      );
    };
    const host: IHost = { runCell: code => runInCell(app, tracker, code) };
    (globalThis as { llfHost?: IHost }).llfHost = host; // for views that a kernel's widget draws
    tracker.forEach(addTo);
    tracker.widgetAdded.connect((_, panel) => addTo(panel));
  }
};

/** The monitor's module and stylesheet, from the server: once a page. */
async function load(api: Api): Promise<IFrontEnd> {
  const { module, css } = await api.frontEnd();
  const style = document.createElement('style');
  style.textContent = css;
  document.head.append(style);
  const url = URL.createObjectURL(
    new Blob([module], { type: 'text/javascript' })
  );
  try {
    const loaded = (await import(/* webpackIgnore: true */ url)) as {
      default: IFrontEnd;
    };
    return loaded.default;
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** One output that is a view. */
class SavedView extends Panel {
  constructor(page: IPage, notebook: NotebookPanel) {
    super();
    this._page = page;
    this._notebook = notebook;
    this.addClass('llf-SavedView');
    this.node.addEventListener('llf-head', event => {
      const { run, head } = (event as CustomEvent<IHeadNews>).detail;
      void this._keep(run, head);
    });
  }

  /** Shows an output, or takes over a newer text of the one that is shown. */
  async renderModel(model: MimeModel): Promise<void> {
    const view = readView(model.data[VIEW]);
    const name = `${view.view} ${view.run ?? ''}`;
    this._model = model;
    if (this._name === name) {
      return;
    }
    this._name = name;
    this._end();
    this._patience = setTimeout(() => this._showText(), STATIC_AFTER);
    if (view.run && view.home) {
      await this._showRun(view.run, view.home);
    } else {
      this._showWidget();
    }
  }

  dispose(): void {
    this._end();
    super.dispose();
  }

  /** A run is shown from the server; where that has no such run, from the kernel. */
  private async _showRun(run: string, home: string): Promise<void> {
    const turn = this._turn; // another view may be wanted, or none, by the time that the server answers
    let there: boolean;
    let frontEnd: IFrontEnd | null = null;
    try {
      there = await this._page.api.hasRun(run, home);
      frontEnd = there ? await this._page.frontEnd() : null;
    } catch {
      if (this._turn !== turn) {
        return;
      }
      this._showText();
      this._retry = setTimeout(() => void this._showRun(run, home), RETRY);
      return;
    }
    if (this._turn !== turn) {
      return;
    }
    if (!frontEnd) {
      this._showWidget();
      return;
    }
    const body = new Widget();
    const el = document.createElement('div');
    body.node.append(el);
    body.addClass('llf');
    body.addClass('llf-Monitor');
    this._replace(body);
    this._close = frontEnd.render({
      el,
      run,
      home,
      page: { runCell: code => this._runCell(code) }
    });
  }

  /**
   * The widget of the view's kernel; the text as long as that has none, or for good.
   *
   * ipywidgets puts a factory of its own into each notebook, some time after the page was loaded, and what an earlier
   * factory made never finds its widget: so another factory means another try.
   */
  private _showWidget(): void {
    const model = this._model;
    if (!model || !(WIDGET in model.data)) {
      this._showText();
      return;
    }
    const { rendermime } = this._notebook.content;
    let used: ReturnType<Registry['getFactory']>;
    let widget: (Renderer & Panel) | null = null;
    // The renderer of ipywidgets has a child once it has found the widget; before, and without one, it has a line.
    const look = (): void => {
      if (widget?.widgets?.length) {
        this._stopLooking();
        clearTimeout(this._patience);
        this._drop(this._text);
        this._text = null;
        widget.show();
      }
    };
    const tryAnew = (): void => {
      const factory = rendermime.getFactory(WIDGET);
      if (!factory || factory === used) {
        return;
      }
      used = factory;
      this._drop(widget);
      this._watch?.disconnect();
      widget = rendermime.createRenderer(WIDGET) as Renderer & Panel;
      widget.hide();
      this.addWidget(widget);
      this._watch = new MutationObserver(look);
      this._watch.observe(widget.node, { childList: true });
      void widget.renderModel(model).then(look);
    };
    this._looking = setInterval(tryAnew, FACTORY_EVERY);
    tryAnew();
  }

  private _stopLooking(): void {
    clearInterval(this._looking);
    this._watch?.disconnect();
  }

  /** What the notebook holds of the view. */
  private _showText(): void {
    clearTimeout(this._patience);
    const model = this._model;
    if (!model || this._text || this.isDisposed) {
      return;
    }
    const { rendermime } = this._notebook.content;
    const type = ['text/html', 'text/plain'].find(one => one in model.data);
    if (type) {
      this._text = rendermime.createRenderer(type);
      this.insertWidget(0, this._text);
      void this._text.renderModel(model);
    }
  }

  private _replace(body: Widget): void {
    clearTimeout(this._patience);
    for (const one of [...this.widgets]) {
      this._drop(one);
    }
    this._text = null;
    this.addWidget(body);
  }

  private _drop(widget: Widget | null): void {
    if (widget) {
      widget.parent = null;
      widget.dispose();
    }
  }

  /**
   * Brings the text in the notebook up to date, so that what is saved tells how the run stands. The kernel does so
   * too; after a reload of the page, or without a kernel, it cannot.
   */
  private async _keep(run: string, head: IHead): Promise<void> {
    const saved = readView(this._model?.data[VIEW]);
    const news =
      head.state !== saved.state || (head.step ?? 0) !== (saved.step ?? 0);
    const now = Date.now();
    const due = head.live ? now - this._keptAt > KEEP_EVERY : true;
    if (!news || !due || this._keeping) {
      return;
    }
    this._keeping = true;
    this._keptAt = now;
    try {
      const data = await this._page.api.summary(run);
      this._write(saved.view === 'studio' ? this._withForm(data) : data);
    } catch {
      // the server does not answer: the next news tries again
    } finally {
      this._keeping = false;
    }
  }

  /** The texts of a run above those of the form that has started it. */
  private _withForm(run: Record<string, unknown>): Record<string, unknown> {
    const held = this._model?.data ?? {};
    const view = readView(held[VIEW]);
    const form = view.form ?? {
      html: joined(held['text/html']),
      plain: joined(held['text/plain'])
    };
    const { state, step }: IView = readView(run[VIEW]);
    return {
      ...run,
      [VIEW]: { ...view, state, step, form },
      'text/html': `${joined(run['text/html'])}\n${form.html}`,
      'text/plain': `${joined(run['text/plain'])}\n\n${form.plain}`
    };
  }

  /** Puts a newer bundle into the output that is shown. */
  private _write(data: Record<string, unknown>): void {
    const model = this._model;
    for (const cell of this._notebook.content.widgets) {
      const outputs = (cell.model as { outputs?: IOutputs }).outputs;
      for (let place = 0; outputs && place < outputs.length; place++) {
        const output = outputs.get(place);
        if ((output as unknown) === model) {
          const old = output.toJSON();
          outputs.set(place, {
            ...old,
            data: { ...(old.data as object), ...data }
          });
          return;
        }
      }
    }
  }

  /** Runs code in a cell below the one that shows this view. */
  private async _runCell(code: string): Promise<boolean> {
    const { content } = this._notebook;
    const place = content.widgets.findIndex(cell =>
      cell.node.contains(this.node)
    );
    if (place >= 0) {
      content.activeCellIndex = place;
    }
    return runInCell(this._page.app, this._page.tracker, code);
  }

  private _end(): void {
    this._turn += 1;
    clearTimeout(this._patience);
    clearTimeout(this._retry);
    this._stopLooking();
    this._close?.();
    this._close = null;
  }

  private _page: IPage;
  private _notebook: NotebookPanel;
  private _model: MimeModel | null = null;
  private _name = '';
  private _turn = 0;
  private _text: Renderer | null = null;
  private _patience?: ReturnType<typeof setTimeout>;
  private _retry?: ReturnType<typeof setTimeout>;
  private _looking?: ReturnType<typeof setInterval>;
  private _watch: MutationObserver | null = null;
  private _close: (() => void) | null = null;
  private _keptAt = 0;
  private _keeping = false;
}

/** The outputs of a code cell, as far as they are needed here. */
interface IOutputs {
  readonly length: number;
  get(place: number): { toJSON(): Record<string, unknown> };
  set(place: number, value: unknown): void;
}

/** A text of a notebook: one string, or its lines. */
function joined(text: unknown): string {
  return Array.isArray(text) ? text.join('') : String(text ?? '');
}
