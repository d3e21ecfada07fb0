import { Clipboard, ReactWidget, UseSignal } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Adapters } from './adapters';
import { Bin } from './bin';
import type { BinActions } from './bin_actions';
import { Details } from './details';
import { Filters } from './filters';
import { RunList } from './list';
import {
  Empty,
  Mismatch,
  Missing,
  NoMatch,
  Reading,
  Unreachable
} from './messages';
import { EVERYTHING, type RunsModel } from './model';

/** What the panel has others do. */
export interface IDoors {
  /** Puts text on the clipboard. */
  toClipboard: (text: string) => void;
  /** Executes a command for the chosen runs. */
  execute: (command: string, args?: { step: number }) => void;
  /** Opens the menu of what can be done with the chosen runs. */
  openMenu: (x: number, y: number) => void;
  /** Moves runs from the bin. */
  bin: Pick<BinActions, 'restore' | 'removeForGood'>;
}

interface IRunsProps extends IDoors {
  model: RunsModel;
  trans: TranslationBundle;
}

/** What the panel shows for the model's present state. */
export function Runs(props: IRunsProps): React.JSX.Element {
  const { model, trans } = props;
  const copy = (text: string, words: string): void => {
    props.toClipboard(text);
    model.say(words);
  };
  const more = (event: React.MouseEvent): void => {
    const box = event.currentTarget.getBoundingClientRect();
    props.openMenu(box.left, box.bottom);
  };
  const open = (id: string): void => {
    model.select(id);
    void model.open(id);
  };
  const cameFrom = React.useRef<string | null>(null);
  const back = (): void => {
    cameFrom.current = model.details?.id ?? null;
    void model.open(null);
  };
  const binLink = React.useRef<HTMLButtonElement>(null);
  const leaveBin = async (): Promise<void> => {
    await model.openBin(false);
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
    } else if (key === 'Delete' && !event.repeat) {
      const place = target as HTMLElement;
      const row = place.dataset.run;
      if (row && !model.isSelected(row) && model.selected.length < 2) {
        model.select(row); // as the menu does: a row that is not chosen is meant alone
      }
      if (row || model.details || place.closest('.llf-RunsPanel-chosen')) {
        props.execute('llf:delete');
      }
    }
  };
  const now = Date.now() / 1000;
  const there = model.health !== 'missing' && model.health !== 'loading';

  return (
    <section
      className="llf-RunsPanel-body"
      aria-label={trans.__('LLF runs')}
      onKeyDown={onKeyDown}
    >
      {model.mismatch && <Mismatch model={model} trans={trans} />}
      {model.health === 'unreachable' && (
        <Unreachable model={model} trans={trans} />
      )}
      {model.health === 'loading' && (
        <p className="llf-Empty">{trans.__('Loading runs…')}</p>
      )}
      {model.health === 'missing' && (
        <Missing model={model} trans={trans} copy={copy} />
      )}
      {there && model.details && (
        <Details
          details={model.details}
          trans={trans}
          onBack={back}
          onMonitor={() => props.execute('llf:open-monitor')}
          onStop={() => props.execute('llf:stop')}
          onBranch={step => props.execute('llf:branch', { step })}
          onMore={more}
        />
      )}
      {there && !model.details && model.bin && (
        <Bin
          page={model.bin}
          trans={trans}
          onBack={() => void leaveBin()}
          onRestore={runs => void props.bin.restore(runs)}
          onRemove={runs => void props.bin.removeForGood(runs)}
          now={now}
        />
      )}
      {there && !model.details && !model.bin && (
        <>
          {(model.total > 0 || model.isFiltered) && (
            <Filters
              model={model}
              trans={trans}
              onNew={() => props.execute('llf:new-run')}
            />
          )}
          {model.selected.length > 1 && (
            <Chosen {...props} count={model.selected.length} onMore={more} />
          )}
          <Reading model={model} trans={trans} />
          {model.health === 'ready' &&
            model.total === 0 &&
            !model.reading &&
            (model.isFiltered ? (
              <NoMatch
                trans={trans}
                onClear={() => void model.narrow(EVERYTHING)}
              />
            ) : (
              <Empty
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
                byLoss={model.filter.sort === 'loss'}
                isSelected={id => model.isSelected(id)}
                onOpen={open}
                onToggle={id => model.toggle(id)}
                onSelect={(...ids) => model.select(...ids)}
                cameFrom={cameFrom}
                now={now}
              />
              <Foot model={model} trans={trans} />
            </>
          )}
          <Adapters
            adapters={model.adapters}
            total={model.adaptersTotal}
            trans={trans}
            onOpen={open}
            now={now}
          />
          {model.binTotal > 0 && (
            <div className="llf-RunsPanel-foot">
              <button
                ref={binLink}
                className="llf-link"
                onClick={() => void model.openBin(true)}
              >
                {trans._n('Bin: %1 run', 'Bin: %1 runs', model.binTotal)}
              </button>
            </div>
          )}
        </>
      )}
      <p className="llf-RunsPanel-said" role="status">
        {model.said}
      </p>
    </section>
  );
}

function Chosen(
  props: IRunsProps & {
    count: number;
    onMore: (event: React.MouseEvent) => void;
  }
): React.JSX.Element {
  const { trans } = props;
  return (
    <div className="llf-RunsPanel-chosen llf-row">
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

function Foot({
  model,
  trans
}: Pick<IRunsProps, 'model' | 'trans'>): React.JSX.Element {
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

/** The panel of the left sidebar. */
export class RunsPanel extends ReactWidget {
  constructor(
    private _model: RunsModel,
    private _trans: TranslationBundle,
    private _doors: Omit<IDoors, 'toClipboard'>
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
          <Runs
            model={this._model}
            trans={this._trans}
            toClipboard={text => Clipboard.copyToSystem(text)}
            {...this._doors}
          />
        )}
      </UseSignal>
    );
  }
}
