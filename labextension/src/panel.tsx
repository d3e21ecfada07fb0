import { Clipboard, ReactWidget, UseSignal } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { RunList } from './list';
import { Empty, Mismatch, Missing, Unreachable } from './messages';
import type { RunsModel } from './model';

interface IRunsProps {
  model: RunsModel;
  trans: TranslationBundle;
  /** Puts text on the clipboard. */
  toClipboard: (text: string) => void;
}

/** What the panel shows for the model's present state. */
export function Runs(props: IRunsProps): React.JSX.Element {
  const { model, trans } = props;
  const [said, setSaid] = React.useState('');
  const copy = (text: string, words: string): void => {
    props.toClipboard(text);
    setSaid(words);
  };

  return (
    <>
      {model.mismatch && <Mismatch model={model} trans={trans} />}
      {model.health === 'unreachable' && (
        <Unreachable model={model} trans={trans} />
      )}
      {model.health === 'loading' && (
        <p className="llf-Empty">{trans.__('Asking the server…')}</p>
      )}
      {model.health === 'missing' && (
        <Missing model={model} trans={trans} copy={copy} />
      )}
      {model.health === 'ready' && model.total === 0 && (
        <Empty model={model} trans={trans} copy={copy} />
      )}
      {model.health !== 'missing' && model.runs.length > 0 && (
        <>
          <RunList
            runs={model.runs}
            trans={trans}
            copy={copy}
            now={Date.now() / 1000}
          />
          <Foot model={model} trans={trans} />
        </>
      )}
      <p className="llf-RunsPanel-said" role="status">
        {said}
      </p>
    </>
  );
}

function Foot({
  model,
  trans
}: Omit<IRunsProps, 'toClipboard'>): React.JSX.Element {
  return (
    <div className="llf-RunsPanel-foot">
      <span>{trans.__('%1 of %2 runs', model.runs.length, model.total)}</span>
      {model.hasMore ? (
        <button className="llf-link" onClick={() => void model.showMore()}>
          {trans.__('Show 50 more')}
        </button>
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
    private _trans: TranslationBundle
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
          />
        )}
      </UseSignal>
    );
  }
}
