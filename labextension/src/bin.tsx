import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IBinned, IBinPage } from './api';
import { Crumbs } from './crumbs';
import { age, called, stateWord } from './format';
import { Name, type Parts, takeApart } from './names';
import { bytes } from './numbers';

interface IProps {
  page: IBinPage;
  trans: TranslationBundle;
  onBack: () => void;
  onRestore: (runs: readonly IBinned[]) => void;
  onRemove: (runs: readonly IBinned[]) => void;
  /** Unix seconds. */
  now: number;
}

/** The runs in the bin, to be restored or removed for good. */
export function Bin(props: IProps): React.JSX.Element {
  const { page, trans } = props;
  const head = React.useRef<HTMLButtonElement>(null);
  React.useEffect(() => {
    // At first, and where what had the focus is gone.
    if (!head.current?.closest('.llf-Bin')?.contains(document.activeElement)) {
      head.current?.focus();
    }
  }, [page]);
  const size = page.runs.reduce((sum, run) => sum + run.bytes, 0);
  const names = page.runs.map(run => run.name);
  const parts = React.useMemo(() => takeApart(names), [names.join('\n')]);
  return (
    <article className="llf-Bin" aria-label={trans.__('Bin')}>
      <header>
        <Crumbs button={head} trans={trans} onBack={props.onBack}>
          <h3>{trans.__('Bin')}</h3>
        </Crumbs>
      </header>
      {page.total === 0 ? (
        <p>{trans.__('The bin is empty.')}</p>
      ) : (
        <>
          <p className="llf-2">
            {page.runs.length < page.total
              ? trans.__(
                  'The last %1 of %2 runs,',
                  page.runs.length,
                  page.total
                )
              : trans._n('%1 run,', '%1 runs,', page.total)}{' '}
            {trans.__('%1 on the disk.', bytes(size))}
          </p>
          {page.runs.length > 1 && (
            <div className="llf-row">
              <button onClick={() => props.onRestore(page.runs)}>
                {trans.__('Restore all')}
              </button>
              <button onClick={() => props.onRemove(page.runs)}>
                {trans.__('Delete all permanently…')}
              </button>
            </div>
          )}
        </>
      )}
      <ul>
        {page.runs.map(run => (
          <Item
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

function Item(
  props: IProps & { run: IBinned; parts: Parts }
): React.JSX.Element {
  const { run, trans } = props;
  const name = called(run);
  return (
    <li className="llf-Bin-item" data-binned={run.id}>
      <Name parts={props.parts} title={`${run.name}\n${run.id}`} />
      <span className="llf-2">
        {trans.__(
          '%1, deleted %2 ago, %3',
          stateWord(run.state, trans),
          age(props.now - run.deleted, trans),
          bytes(run.bytes)
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
          onClick={() => props.onRemove([run])}
        >
          {trans.__('Delete permanently…')}
        </button>
      </div>
    </li>
  );
}
