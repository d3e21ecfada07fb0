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
          'Runs appear here as soon as they start, from a notebook, a terminal or a script.'
        )}
      </p>
      <button className="llf-primary" onClick={onNew}>
        {trans.__('New run')}
      </button>
      <p>{trans.__('or in a cell')}</p>
      <pre>{START_CODE}</pre>
      <button onClick={() => copy(START_CODE, trans.__('Code copied.'))}>
        {trans.__('Copy code')}
      </button>
      <p className="llf-2">
        {trans.__('Run folder:')} <code>{model.version?.folder}</code>.{' '}
        {trans.__(
          'Runs in another folder? Set LLF_HOME to that folder for the Jupyter server, then restart the server.'
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
            'LLF is not installed in the Jupyter server: %1 returned 404. Expected LLF %2.',
            'llf/api/version',
            model.pageVersion
          )}
        </div>
      </div>
      <p>
        {trans.__(
          'Run these commands in the environment of the server, then restart it:'
        )}
      </p>
      <pre>{INSTALL_COMMANDS}</pre>
      <div className="llf-row">
        <button
          onClick={() => copy(INSTALL_COMMANDS, trans.__('Commands copied.'))}
        >
          {trans.__('Copy commands')}
        </button>
        <Retry model={model} trans={trans} />
      </div>
      <p className="llf-2">
        {trans.__(
          'Your runs are not affected. llf.Monitor(run_id) still shows them in a notebook.'
        )}
      </p>
    </div>
  );
}

/** A warning above the list. */
function Warning({
  trans,
  children
}: React.PropsWithChildren<Pick<IProps, 'trans'>>): React.JSX.Element {
  return (
    <div className="llf-Message is-warn" role="status">
      <b>{trans.__('Warning')}</b>
      <div>{children}</div>
    </div>
  );
}

/** Shown above the list: it is the last one known. */
export function Unreachable({
  model,
  trans
}: Omit<IProps, 'copy'>): React.JSX.Element {
  return (
    <Warning trans={trans}>
      {model.refusal
        ? trans.__(
            'The Jupyter server refused the request: %1 The list may be out of date. Your runs are not affected.',
            model.refusal
          )
        : trans.__(
            'The Jupyter server does not answer. The list may be out of date. Your runs are not affected.'
          )}
      <div className="llf-Message-fix">
        <Retry model={model} trans={trans} />
      </div>
    </Warning>
  );
}

/** Shown above the list: page and server are of different versions. */
export function Mismatch({
  model,
  trans
}: Omit<IProps, 'copy'>): React.JSX.Element {
  return (
    <Warning trans={trans}>
      {trans.__(
        'This page has LLF %1, the server %2. Restart the server, then reload the page.',
        model.pageVersion,
        model.version?.llf ?? ''
      )}
    </Warning>
  );
}

function Retry({ model, trans }: Omit<IProps, 'copy'>): React.JSX.Element {
  return (
    <button onClick={() => void model.refresh()}>
      {trans.__('Try again')}
    </button>
  );
}
