import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IDeletedRun, IBinPage } from './api';
import { Breadcrumbs } from './breadcrumbs';
import { formatAge, displayName, stateLabel } from './format';
import { RunName, type NameParts, splitNames } from './run_name';
import { formatBytes } from './numbers';

interface IBinProps {
  page: IBinPage;
  trans: TranslationBundle;
  onBack: () => void;
  onRestore: (runs: readonly IDeletedRun[]) => void;
  onDelete: (runs: readonly IDeletedRun[]) => void;
  /** Unix seconds. */
  now: number;
}

/** The runs in the bin, with buttons that restore them or delete them permanently. */
export function BinView(props: IBinProps): React.JSX.Element {
  const { page, trans } = props;
  const backButton = React.useRef<HTMLButtonElement>(null);
  React.useLayoutEffect(() => {
    // When the view opens, and when the focused button has been removed.
    if (
      !backButton.current?.closest('.llf-Bin')?.contains(document.activeElement)
    ) {
      backButton.current?.focus();
    }
  }, [page]);
  const size = page.runs.reduce((sum, run) => sum + run.bytes, 0);
  const names = page.runs.map(run => run.name);
  const parts = React.useMemo(() => splitNames(names), [names.join('\n')]);
  return (
    <article className="llf-Bin" aria-label={trans.__('Bin')}>
      <header>
        <Breadcrumbs button={backButton} trans={trans} onBack={props.onBack}>
          <h3>{trans.__('Bin')}</h3>
        </Breadcrumbs>
      </header>
      {page.total === 0 ? (
        <p>{trans.__('The bin is empty.')}</p>
      ) : (
        <>
          <p className="llf-secondary">
            {page.runs.length < page.total
              ? trans.__(
                  'The last %1 of %2 runs,',
                  page.runs.length,
                  page.total
                )
              : trans._n('%1 run,', '%1 runs,', page.total)}{' '}
            {trans.__('%1 on the disk.', formatBytes(size))}
          </p>
          {page.runs.length > 1 && (
            <div className="llf-row">
              <button onClick={() => props.onRestore(page.runs)}>
                {trans.__('Restore all')}
              </button>
              <button onClick={() => props.onDelete(page.runs)}>
                {trans.__('Delete all permanently…')}
              </button>
            </div>
          )}
        </>
      )}
      <ul>
        {page.runs.map(run => (
          <BinItem
            key={run.id}
            {...props}
            run={run}
            parts={parts.get(run.name)!}
          />
        ))}
      </ul>
    </article>
  );
}

function BinItem(
  props: IBinProps & { run: IDeletedRun; parts: NameParts }
): React.JSX.Element {
  const { run, trans } = props;
  const name = displayName(run);
  return (
    <li className="llf-Bin-item" data-binned={run.id}>
      <RunName parts={props.parts} title={`${run.name}\n${run.id}`} />
      <span className="llf-secondary">
        {trans.__(
          '%1, deleted %2 ago, %3',
          stateLabel(run.state, trans),
          formatAge(props.now - run.deleted, trans),
          formatBytes(run.bytes)
        )}
      </span>
      <div className="llf-row">
        <button
          aria-label={trans.__('Restore %1', name)}
          onClick={() => props.onRestore([run])}
        >
          {trans.__('Restore')}
        </button>
        <button
          aria-label={trans.__('Delete permanently… %1', name)}
          onClick={() => props.onDelete([run])}
        >
          {trans.__('Delete permanently…')}
        </button>
      </div>
    </li>
  );
}
