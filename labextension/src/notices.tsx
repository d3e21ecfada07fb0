import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { RunsModel } from './model';
import { formatCount } from './numbers';

/** Python code that shows the form for a new run. */
export const START_CODE = 'import llf_widgets as llf\nllf.Studio()';

/** Shell commands that install the server extension from LLF's folder or wheel and list the installed ones. */
export const INSTALL_COMMANDS =
  'pip install LLF_FOLDER\njupyter server extension list';

interface IMessageProps {
  model: RunsModel;
  trans: TranslationBundle;
  copy: (text: string, confirmation: string) => void;
}

/** Shown instead of the list when no run matches the search and the filter. */
export function NoMatches({
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

/** Shown while the server has not indexed all runs, because runs that match may be missing from the list. */
export function IndexProgress({
  model,
  trans
}: Omit<IMessageProps, 'copy'>): React.JSX.Element | null {
  return (
    model.indexProgress && (
      <p className="llf-IndexProgress llf-secondary" role="status">
        {trans.__(
          'Reading runs: %1 of %2. More may match.',
          formatCount(model.indexProgress.done),
          formatCount(model.indexProgress.of)
        )}
      </p>
    )
  );
}

/** Shown when there are no runs: how to start one, and which folder the server reads. */
export function NoRuns({
  model,
  trans,
  copy,
  onNew
}: IMessageProps & { onNew: () => void }): React.JSX.Element {
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
      <p className="llf-secondary">
        {trans.__('Run folder:')} <code>{model.version?.folder}</code>.{' '}
        {trans.__(
          'Runs in another folder? Set LLF_HOME to that folder for the Jupyter server, then restart the server.'
        )}
      </p>
    </div>
  );
}

/** Shown when the Jupyter server answers but has no LLF extension: how to install it. */
export function ServerMissing({
  model,
  trans,
  copy
}: IMessageProps): React.JSX.Element {
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
          'Run these commands in the environment of the server, with the folder or wheel that LLF was installed from as LLF_FOLDER. Then restart the server:'
        )}
      </p>
      <pre>{INSTALL_COMMANDS}</pre>
      <div className="llf-row">
        <button
          onClick={() => copy(INSTALL_COMMANDS, trans.__('Commands copied.'))}
        >
          {trans.__('Copy commands')}
        </button>
        <RetryButton model={model} trans={trans} />
      </div>
      <p className="llf-secondary">
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
}: React.PropsWithChildren<Pick<IMessageProps, 'trans'>>): React.JSX.Element {
  return (
    <div className="llf-Message is-warn" role="status">
      <b>{trans.__('Warning')}</b>
      <div>{children}</div>
    </div>
  );
}

/** Warns that the server fails or does not answer, so the list may be out of date. */
export function ServerUnreachable({
  model,
  trans
}: Omit<IMessageProps, 'copy'>): React.JSX.Element {
  return (
    <Warning trans={trans}>
      {trans.__(
        '%1 The list may be out of date. Your runs are not affected.',
        model.serverError
      )}
      <div className="llf-Message-fix">
        <RetryButton model={model} trans={trans} />
      </div>
    </Warning>
  );
}

/** Warns that the page and the server have different versions of LLF. */
export function VersionMismatch({
  model,
  trans
}: Omit<IMessageProps, 'copy'>): React.JSX.Element {
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

function RetryButton({
  model,
  trans
}: Omit<IMessageProps, 'copy'>): React.JSX.Element {
  return (
    <button onClick={() => void model.refresh()}>
      {trans.__('Try again')}
    </button>
  );
}
