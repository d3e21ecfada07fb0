import { Clipboard, ReactWidget, UseSignal } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Adapters } from './adapters';
import { BinView } from './bin_view';
import type { BinActions } from './bin_actions';
import { RunDetails } from './run_details';
import { Filters } from './filters';
import { HostSelect } from './host_select';
import { RunList } from './run_list';
import {
  NoRuns,
  VersionMismatch,
  ServerMissing,
  NoMatches,
  IndexProgress,
  ServerUnreachable
} from './notices';
import { DEFAULT_FILTER, type RunsModel } from './model';

/** Callbacks of the panel into the application; tests pass their own. */
export interface IPanelCallbacks {
  /** Copies text to the clipboard. */
  copyToClipboard: (text: string) => void;
  /** Executes a command for the selected runs, or for the run of its arguments. */
  execute: (command: string, args?: { step: number } | { run: string }) => void;
  /** Opens the menu of commands for the selected runs at a position of the page. */
  openMenu: (x: number, y: number) => void;
  /** Actions on runs in the bin. */
  bin: Pick<BinActions, 'restore' | 'deletePermanently'>;
}

interface IRunsViewProps extends IPanelCallbacks {
  model: RunsModel;
  trans: TranslationBundle;
}

/** The content of the panel: the list, the details of a run, the bin or a message, depending on the model's state. */
export function RunsView(props: IRunsViewProps): React.JSX.Element {
  const { model, trans } = props;
  const copy = (text: string, confirmation: string): void => {
    props.copyToClipboard(text);
    model.setStatusMessage(confirmation);
  };
  const openMenu = (event: React.MouseEvent): void => {
    const box = event.currentTarget.getBoundingClientRect();
    props.openMenu(box.left, box.bottom);
  };
  const open = (id: string): void => {
    model.select(id);
    void model.openDetails(id);
  };
  const restoreFocusTo = React.useRef<string | null>(null);
  const back = (): void => {
    restoreFocusTo.current = model.details?.id ?? null;
    void model.openDetails(null);
  };
  const binLink = React.useRef<HTMLButtonElement>(null);
  const leaveBin = async (): Promise<void> => {
    await model.showBin(false);
    binLink.current?.focus();
  };
  const onKeyDown = (event: React.KeyboardEvent): void => {
    const { target, key } = event;
    if (event.defaultPrevented || target instanceof HTMLSelectElement) {
      return;
    }
    if (key === 'Escape') {
      if (model.details) {
        back();
      } else if (model.bin) {
        void leaveBin();
      } else {
        model.select();
      }
    } else if (['Delete', 'F2'].includes(key) && !event.repeat) {
      const element = target as HTMLElement;
      const row = element.dataset.run;
      if (row && !model.isSelected(row) && model.selectedRuns.length < 2) {
        model.select(row); // as in the menu: a row outside the selection replaces the selection
      }
      if (row || model.details || element.closest('.llf-RunsPanel-selection')) {
        props.execute(key === 'F2' ? 'llf:rename' : 'llf:delete');
      }
    } else if (
      key === 'z' &&
      (event.ctrlKey || event.metaKey) &&
      !event.shiftKey &&
      !(target instanceof HTMLInputElement)
    ) {
      event.preventDefault();
      props.execute('llf:undo-delete');
    }
  };
  const now = Date.now() / 1000;
  const isReachable =
    model.serverStatus !== 'missing' && model.serverStatus !== 'loading';

  return (
    <section
      className="llf-RunsPanel-body"
      aria-label={trans.__('LLF runs')}
      onKeyDown={onKeyDown}
    >
      {model.versionMismatch && <VersionMismatch model={model} trans={trans} />}
      {model.serverStatus === 'unreachable' && (
        <ServerUnreachable model={model} trans={trans} />
      )}
      {model.serverStatus === 'loading' && (
        <p className="llf-Empty">{trans.__('Loading runs…')}</p>
      )}
      {model.serverStatus === 'missing' && (
        <ServerMissing model={model} trans={trans} copy={copy} />
      )}
      {isReachable && model.details && (
        <RunDetails
          details={model.details}
          trans={trans}
          isElsewhere={model.host !== ''}
          onBack={back}
          onMonitor={() => props.execute('llf:open-monitor')}
          onStop={() => props.execute('llf:stop')}
          onResume={() => props.execute('llf:resume')}
          isResuming={model.isResuming({
            id: model.details.id,
            state: model.details.status.state
          })}
          onBranch={step => props.execute('llf:branch', { step })}
          onChat={step => props.execute('llf:chat', { step })}
          onEvaluate={() => props.execute('llf:evaluate-model')}
          onExport={() => props.execute('llf:export')}
          onFetch={() => props.execute('llf:fetch')}
          exportUrl={key => model.api.exportUrl(model.details?.id ?? '', key)}
          onMore={openMenu}
        />
      )}
      {isReachable && !model.details && model.bin && (
        <BinView
          page={model.bin}
          trans={trans}
          onBack={() => void leaveBin()}
          onRestore={runs => void props.bin.restore(runs)}
          onDelete={runs => void props.bin.deletePermanently(runs)}
          now={now}
        />
      )}
      {!model.details && !model.bin && (
        <HostSelect model={model} trans={trans} />
      )}
      {isReachable && !model.details && !model.bin && (
        <>
          {(model.total > 0 || model.isFiltered) && (
            <Filters
              model={model}
              trans={trans}
              onNew={() => props.execute('llf:new-run')}
            />
          )}
          {model.selectedRuns.length > 1 && (
            <SelectionBar
              {...props}
              count={model.selectedRuns.length}
              onMore={openMenu}
            />
          )}
          <IndexProgress model={model} trans={trans} />
          {model.serverStatus === 'ready' &&
            model.total === 0 &&
            !model.indexProgress &&
            (model.isFiltered ? (
              <NoMatches
                trans={trans}
                onClear={() => void model.setFilter(DEFAULT_FILTER)}
              />
            ) : (
              <NoRuns
                model={model}
                trans={trans}
                copy={copy}
                onNew={() => props.execute('llf:new-run')}
              />
            ))}
          {model.runs.length > 0 && (
            <>
              <RunList
                runs={model.runs}
                trans={trans}
                group={model.filter.group}
                sortedByLoss={model.filter.sort === 'loss'}
                sortMetric={model.sortMetric}
                isSelected={id => model.isSelected(id)}
                isResuming={run => model.isResuming(run)}
                onOpen={open}
                onToggle={id => model.toggle(id)}
                onSelect={(...ids) => model.select(...ids)}
                restoreFocusTo={restoreFocusTo}
                now={now}
              />
              <ListFooter model={model} trans={trans} />
            </>
          )}
          {!model.host && (
            <Adapters
              adapters={model.adapters}
              total={model.adaptersTotal}
              trans={trans}
              onOpen={open}
              onChat={run => props.execute('llf:chat-result', { run })}
              now={now}
            />
          )}
          {model.binTotal > 0 && !model.host && (
            <div className="llf-RunsPanel-foot">
              <button
                ref={binLink}
                className="llf-link"
                onClick={() => void model.showBin(true)}
              >
                {trans._n('Bin: %1 run', 'Bin: %1 runs', model.binTotal)}
              </button>
            </div>
          )}
        </>
      )}
      <p className="llf-RunsPanel-status" role="status">
        {model.statusMessage}
      </p>
    </section>
  );
}

function SelectionBar(
  props: IRunsViewProps & {
    count: number;
    onMore: (event: React.MouseEvent) => void;
  }
): React.JSX.Element {
  const { trans } = props;
  return (
    <div className="llf-RunsPanel-selection llf-row">
      <b>{trans.__('%1 selected', props.count)}</b>
      <button onClick={() => props.execute('llf:compare')}>
        {trans.__('Compare')}
      </button>
      <button aria-haspopup="menu" onClick={props.onMore}>
        {trans.__('More…')}
      </button>
      <button className="llf-link" onClick={() => props.model.select()}>
        {trans.__('Clear selection')}
      </button>
    </div>
  );
}

function ListFooter({
  model,
  trans
}: Pick<IRunsViewProps, 'model' | 'trans'>): React.JSX.Element {
  return (
    <div className="llf-RunsPanel-foot">
      <span>
        {model.runs.length < model.total
          ? trans.__('%1 of %2 runs', model.runs.length, model.total)
          : trans._n('%1 run', '%1 runs', model.total)}
      </span>
      {model.hasMore ? (
        <button className="llf-link" onClick={() => void model.showMore()}>
          {trans.__('Show 50 more')}
        </button>
      ) : model.runs.length < model.total ? (
        <span>{trans.__('Use search or filters to see the others.')}</span>
      ) : (
        <span>
          {trans.__('LLF %1', model.version?.llf ?? model.pageVersion)}
        </span>
      )}
    </div>
  );
}

/** The panel of the left sidebar. It draws its content again whenever the model emits `changed`. */
export class RunsPanel extends ReactWidget {
  constructor(
    private _model: RunsModel,
    private _trans: TranslationBundle,
    private _callbacks: Omit<IPanelCallbacks, 'copyToClipboard'>
  ) {
    super();
    this.addClass('llf');
    this.addClass('llf-RunsPanel');
  }

  dispose(): void {
    this._model.dispose();
    super.dispose();
  }

  protected onAfterShow(): void {
    void this._model.refresh();
  }

  protected render(): React.JSX.Element {
    return (
      <UseSignal signal={this._model.changed}>
        {() => (
          <RunsView
            model={this._model}
            trans={this._trans}
            copyToClipboard={text => Clipboard.copyToSystem(text)}
            {...this._callbacks}
          />
        )}
      </UseSignal>
    );
  }
}
