import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { RunsModel } from './model';

/** Code that shows the form. */
export const START_CODE = 'import llf_widgets as llf\nllf.Studio()';

/** Commands that bring the server side. */
export const INSTALL_COMMANDS =
  'pip install llf\njupyter server extension list';

interface IProps {
  model: RunsModel;
  trans: TranslationBundle;
  copy: (text: string, said: string) => void;
}

/** Nothing fits the search. */
export function NoMatch({
  trans,
  onClear
}: {
  trans: TranslationBundle;
  onClear: () => void;
}): React.JSX.Element {
  return (
    <div className="llf-Empty">
      <p>{trans.__('No runs match the search and the filter.')}</p>
      <button onClick={onClear}>{trans.__('Show all runs')}</button>
    </div>
  );
}

/** The server has not looked at all runs yet: some that match may be missing. */
export function Reading({
  model,
  trans
}: Omit<IProps, 'copy'>): React.JSX.Element | null {
  return (
    model.reading && (
      <p className="llf-Reading llf-2" role="status">
        {trans.__(
          'Reading runs: %1 of %2. More may match.',
          model.reading.done.toLocaleString('en'),
          model.reading.of.toLocaleString('en')
        )}
      </p>
    )
  );
}

/** No runs yet: how to start one, and which folder is read. */
export function Empty({
  model,
  trans,
  copy,
  onNew
}: IProps & { onNew: () => void }): React.JSX.Element {
  return (
    <div className="llf-Empty">
      <h3>{trans.__('No runs yet')}</h3>
      <p>
        {trans.__(
          'A run shows here as soon as it starts, from a notebook, a terminal or a script.'
        )}
      </p>
      <button className="llf-primary" onClick={onNew}>
        {trans.__('New run')}
      </button>
      <p>{trans.__('or in a cell')}</p>
      <pre>{START_CODE}</pre>
      <button onClick={() => copy(START_CODE, trans.__('The code is copied.'))}>
        {trans.__('Copy code')}
      </button>
      <p className="llf-2">
        {trans.__('Looking in')} <code>{model.version?.folder}</code>.{' '}
        {trans.__(
          'Started runs elsewhere? Set LLF_HOME for the server to that folder and restart it.'
        )}
      </p>
    </div>
  );
}

/** The server answers, but not for LLF. */
export function Missing({ model, trans, copy }: IProps): React.JSX.Element {
  return (
    <div className="llf-Empty">
      <div className="llf-Message is-error" role="alert">
        <b>{trans.__('Error')}</b>
        <div>
          {trans.__(
            'The Jupyter server does not answer for LLF: %1 gave 404. Expected version %2.',
            'llf/api/version',
            model.pageVersion
          )}
        </div>
      </div>
      <p>
        {trans.__(
          'The server runs in an environment without LLF. In that environment run, then restart the server:'
        )}
      </p>
      <pre>{INSTALL_COMMANDS}</pre>
      <div className="llf-row">
        <button
          onClick={() =>
            copy(INSTALL_COMMANDS, trans.__('The commands are copied.'))
          }
        >
          {trans.__('Copy the commands')}
        </button>
        <Retry model={model} trans={trans} />
      </div>
      <p className="llf-2">
        {trans.__(
          'Your runs go on. In a notebook llf.Monitor(run_id) still shows them.'
        )}
      </p>
    </div>
  );
}

/** Shown above the list: it is the last one known. */
export function Unreachable({
  model,
  trans
}: Omit<IProps, 'copy'>): React.JSX.Element {
  return (
    <div className="llf-Message is-warn" role="status">
      <b>{trans.__('Warning')}</b>
      <div>
        {model.refusal
          ? trans.__(
              'The Jupyter server refuses: %1 The list may be old; your runs go on.',
              model.refusal
            )
          : trans.__(
              'The Jupyter server does not answer. The list may be old; your runs go on.'
            )}
        <div className="llf-Message-fix">
          <Retry model={model} trans={trans} />
        </div>
      </div>
    </div>
  );
}

/** Shown above the list: page and server are of different versions. */
export function Mismatch({
  model,
  trans
}: Omit<IProps, 'copy'>): React.JSX.Element {
  return (
    <div className="llf-Message is-warn" role="status">
      <b>{trans.__('Warning')}</b>
      <div>
        {trans.__(
          'The page has LLF %1, the server %2. Expected the same. Restart the server, then reload the page.',
          model.pageVersion,
          model.version?.llf ?? ''
        )}
      </div>
    </div>
  );
}

function Retry({ model, trans }: Omit<IProps, 'copy'>): React.JSX.Element {
  return (
    <button onClick={() => void model.refresh()}>
      {trans.__('Try again')}
    </button>
  );
}
