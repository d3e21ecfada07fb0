import type {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { Panel, Widget } from '@lumino/widgets';

import { Api } from './api';
// eslint-disable-next-line jupyter/prefer-lazy-imports -- the panel loads it anyway
import { runInCell } from './notebook';
import { parseViewData, VIEW_MIME_TYPE, type IViewData } from './view_data';

const WIDGET_MIME_TYPE = 'application/vnd.jupyter.widget-view+json';
const RENDERER_RANK = -20; // before the renderer of ipywidgets, which has -10
const STATIC_FALLBACK_MS = 400; // ms to wait for a live view before the saved text is shown
const FACTORY_POLL_MS = 300; // ms between two checks whether ipywidgets has loaded
const RETRY_MS = 3000; // ms between two attempts to reach the server
const SAVE_INTERVAL_MS = 30_000; // ms between two updates of a live run's output in the notebook

type Registry = NotebookPanel['content']['rendermime'];
type Renderer = ReturnType<Registry['createRenderer']>;
type MimeModel = Parameters<Renderer['renderModel']>[0];

/** The fields of a monitor's part `head` that this file uses. */
interface IRunHead {
  state?: string;
  step?: number;
  live?: boolean;
}

/** Detail of the event `llf-head`, which a monitor dispatches when its part `head` changes. */
interface IHeadEvent {
  run: string;
  head: IRunHead;
}

/** What this extension offers to the views of a page. */
interface IPageHost {
  runCell: (code: string) => Promise<unknown>;
  /** Typesets the math in an element, where JupyterLab has a typesetter. */
  typeset?: (node: HTMLElement) => void;
}

/** The module `widgets/monitor/view.js`. */
interface IMonitorModule {
  render(context: {
    el: HTMLElement;
    run: string;
    home: string;
    page: IPageHost;
  }): () => void;
}

/** What all views of one page share. */
interface IPageContext {
  app: JupyterFrontEnd;
  tracker: INotebookTracker;
  api: Api;
  monitorModule: () => Promise<IMonitorModule>;
}

/**
 * Draws the LLF views of notebooks: a monitor from the server, other views from their kernel, and the saved text if
 * neither is available.
 */
export const viewsPlugin: JupyterFrontEndPlugin<void> = {
  id: 'llf-labextension:views',
  description:
    'Draws the views of LLF in notebooks, with and without a kernel.',
  autoStart: true,
  requires: [INotebookTracker],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker) => {
    const api = new Api(app.serviceManager.serverSettings);
    let module: Promise<IMonitorModule> | null = null;
    const page: IPageContext = {
      app,
      tracker,
      api,
      monitorModule: () => {
        module ??= loadMonitorModule(api).catch((error: unknown) => {
          module = null; // so that the next view tries again
          throw error;
        });
        return module;
      }
    };
    const addRenderer = (panel: NotebookPanel): void => {
      const { rendermime } = panel.content;
      rendermime.addFactory(
        {
          safe: true, // data becomes text nodes; Jupyter sanitizes the saved HTML
          mimeTypes: [VIEW_MIME_TYPE],
          createRenderer: () => new ViewRenderer(page, panel)
        },
        RENDERER_RANK
      );
    };
    const host: IPageHost = {
      runCell: code => runInCell(app, tracker, code),
      typeset: node =>
        tracker.currentWidget?.content.rendermime.latexTypesetter?.typeset(node)
    };
    (globalThis as { llfHost?: IPageHost }).llfHost = host; // for views that are drawn by widgets of a kernel
    tracker.forEach(addRenderer);
    tracker.widgetAdded.connect((_, panel) => addRenderer(panel));
  }
};

/** Loads the module and the style sheet of the monitor from the server. */
async function loadMonitorModule(api: Api): Promise<IMonitorModule> {
  const { module, css } = await api.monitorModule();
  const style = document.createElement('style');
  style.textContent = css;
  document.head.append(style);
  const url = URL.createObjectURL(
    new Blob([module], { type: 'text/javascript' })
  );
  try {
    const loaded = (await import(/* webpackIgnore: true */ url)) as {
      default: IMonitorModule;
    };
    return loaded.default;
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Renderer of one cell output that holds an LLF view. */
class ViewRenderer extends Panel {
  constructor(page: IPageContext, notebook: NotebookPanel) {
    super();
    this._page = page;
    this._notebook = notebook;
    this.addClass('llf-SavedView');
    this.node.addEventListener('llf-head', event => {
      const { run, head } = (event as CustomEvent<IHeadEvent>).detail;
      void this._updateOutput(run, head);
    });
  }

  /** Shows an output. If the view is the same as before, only the saved text is replaced. */
  async renderModel(model: MimeModel): Promise<void> {
    const view = parseViewData(model.data[VIEW_MIME_TYPE]);
    const viewKey = `${view.view} ${view.run ?? ''}`;
    this._model = model;
    if (this._viewKey === viewKey) {
      return;
    }
    this._viewKey = viewKey;
    this._reset();
    this._fallbackTimer = setTimeout(
      () => this._showStatic(),
      STATIC_FALLBACK_MS
    );
    if (view.run && view.home) {
      await this._showRun(view.run, view.home);
    } else {
      this._showWidget();
    }
  }

  dispose(): void {
    this._reset();
    super.dispose();
  }

  /** Shows a monitor with data of the server or, if the server does not have the run, the widget of the kernel. */
  private async _showRun(run: string, home: string): Promise<void> {
    const generation = this._generation; // the view may have changed before the server answers
    let hasRun: boolean;
    let monitor: IMonitorModule | null = null;
    try {
      hasRun = await this._page.api.hasRun(run, home);
      monitor = hasRun ? await this._page.monitorModule() : null;
    } catch {
      if (this._generation !== generation) {
        return;
      }
      this._showStatic();
      this._retryTimer = setTimeout(
        () => void this._showRun(run, home),
        RETRY_MS
      );
      return;
    }
    if (this._generation !== generation) {
      return;
    }
    if (!monitor) {
      this._showWidget();
      return;
    }
    const body = new Widget();
    const el = document.createElement('div');
    body.node.append(el);
    body.addClass('llf');
    body.addClass('llf-Monitor');
    this._replace(body);
    this._closeMonitor = monitor.render({
      el,
      run,
      home,
      page: { runCell: code => this._runCell(code) }
    });
  }

  /**
   * Shows the kernel's widget. Until it is found, and if it never is, the saved text is shown.
   *
   * ipywidgets registers a renderer factory in each notebook some time after the page has loaded. A renderer of an earlier
   * factory never finds its widget, so a new factory means a new attempt.
   */
  private _showWidget(): void {
    const model = this._model;
    if (!model || !(WIDGET_MIME_TYPE in model.data)) {
      this._showStatic();
      return;
    }
    const { rendermime } = this._notebook.content;
    let usedFactory: ReturnType<Registry['getFactory']>;
    let widget: (Renderer & Panel) | null = null;
    // The renderer of ipywidgets has a child widget once it has found the model; before that it has a line of text.
    const checkFound = (): void => {
      if (widget?.widgets?.length) {
        this._stopWatching();
        clearTimeout(this._fallbackTimer);
        this._removeWidget(this._staticRenderer);
        this._staticRenderer = null;
        widget.show();
      }
    };
    const tryFactory = (): void => {
      const factory = rendermime.getFactory(WIDGET_MIME_TYPE);
      if (!factory || factory === usedFactory) {
        return;
      }
      usedFactory = factory;
      this._removeWidget(widget);
      this._observer?.disconnect();
      widget = rendermime.createRenderer(WIDGET_MIME_TYPE) as Renderer & Panel;
      widget.hide();
      this.addWidget(widget);
      this._observer = new MutationObserver(checkFound);
      this._observer.observe(widget.node, { childList: true });
      void widget.renderModel(model).then(checkFound);
    };
    this._factoryTimer = setInterval(tryFactory, FACTORY_POLL_MS);
    tryFactory();
  }

  private _stopWatching(): void {
    clearInterval(this._factoryTimer);
    this._observer?.disconnect();
  }

  /** Shows the HTML or the plain text that is saved in the notebook. */
  private _showStatic(): void {
    clearTimeout(this._fallbackTimer);
    const model = this._model;
    if (!model || this._staticRenderer || this.isDisposed) {
      return;
    }
    const { rendermime } = this._notebook.content;
    const type = ['text/html', 'text/plain'].find(one => one in model.data);
    if (type) {
      this._staticRenderer = rendermime.createRenderer(type);
      this.insertWidget(0, this._staticRenderer);
      void this._staticRenderer.renderModel(model);
    }
  }

  private _replace(body: Widget): void {
    clearTimeout(this._fallbackTimer);
    for (const one of [...this.widgets]) {
      this._removeWidget(one);
    }
    this._staticRenderer = null;
    this.addWidget(body);
  }

  private _removeWidget(widget: Widget | null): void {
    if (widget) {
      widget.parent = null;
      widget.dispose();
    }
  }

  /**
   * Updates the output in the notebook, so that a saved notebook shows the current state of the run. The kernel does the
   * same, but it cannot after a reload of the page.
   */
  private async _updateOutput(run: string, head: IRunHead): Promise<void> {
    const saved = parseViewData(this._model?.data[VIEW_MIME_TYPE]);
    const changed =
      head.state !== saved.state || (head.step ?? 0) !== (saved.step ?? 0);
    const now = Date.now();
    const due = head.live ? now - this._updatedAt > SAVE_INTERVAL_MS : true;
    if (!changed || !due || this._isUpdating) {
      return;
    }
    this._isUpdating = true;
    this._updatedAt = now;
    try {
      const data = await this._page.api.runSummary(run);
      this._writeOutput(saved.view === 'studio' ? this._mergeForm(data) : data);
    } catch {
      // the server does not answer: the next change tries again
    } finally {
      this._isUpdating = false;
    }
  }

  /** Returns an output with the texts of a run above those of the form that started it. */
  private _mergeForm(run: Record<string, unknown>): Record<string, unknown> {
    const current = this._model?.data ?? {};
    const view = parseViewData(current[VIEW_MIME_TYPE]);
    const form = view.form ?? {
      html: joinLines(current['text/html']),
      plain: joinLines(current['text/plain'])
    };
    const { state, step }: IViewData = parseViewData(run[VIEW_MIME_TYPE]);
    return {
      ...run,
      [VIEW_MIME_TYPE]: { ...view, state, step, form },
      'text/html': `${joinLines(run['text/html'])}\n${form.html}`,
      'text/plain': `${joinLines(run['text/plain'])}\n\n${form.plain}`
    };
  }

  /** Replaces the data of this view's output in the notebook. */
  private _writeOutput(data: Record<string, unknown>): void {
    const model = this._model;
    for (const cell of this._notebook.content.widgets) {
      const outputs = (cell.model as { outputs?: IOutputs }).outputs;
      for (let index = 0; outputs && index < outputs.length; index++) {
        const output = outputs.get(index);
        if ((output as unknown) === model) {
          const old = output.toJSON();
          outputs.set(index, {
            ...old,
            data: { ...(old.data as object), ...data }
          });
          return;
        }
      }
    }
  }

  /** Runs code in a cell below the one that shows this view. */
  private async _runCell(code: string): Promise<unknown> {
    const { content } = this._notebook;
    const index = content.widgets.findIndex(cell =>
      cell.node.contains(this.node)
    );
    if (index >= 0) {
      content.activeCellIndex = index;
    }
    return runInCell(this._page.app, this._page.tracker, code);
  }

  private _reset(): void {
    this._generation += 1;
    clearTimeout(this._fallbackTimer);
    clearTimeout(this._retryTimer);
    this._stopWatching();
    this._closeMonitor?.();
    this._closeMonitor = null;
  }

  private _page: IPageContext;
  private _notebook: NotebookPanel;
  private _model: MimeModel | null = null;
  private _viewKey = '';
  private _generation = 0;
  private _staticRenderer: Renderer | null = null;
  private _fallbackTimer?: ReturnType<typeof setTimeout>;
  private _retryTimer?: ReturnType<typeof setTimeout>;
  private _factoryTimer?: ReturnType<typeof setInterval>;
  private _observer: MutationObserver | null = null;
  private _closeMonitor: (() => void) | null = null;
  private _updatedAt = 0;
  private _isUpdating = false;
}

/** The part of a cell's outputs that this file uses. */
interface IOutputs {
  readonly length: number;
  get(index: number): { toJSON(): Record<string, unknown> };
  set(index: number, value: unknown): void;
}

/** Returns a text of a notebook, which is one string or a list of lines, as one string. */
function joinLines(text: unknown): string {
  return Array.isArray(text) ? text.join('') : String(text ?? '');
}
