import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IAdapter } from './api';
import { age } from './format';
import { bytes } from './numbers';
import { lastPart } from './list';
import { Name, takeApart } from './names';

interface IProps {
  adapters: readonly IAdapter[];
  total: number;
  trans: TranslationBundle;
  onOpen: (run: string) => void;
  /** Unix seconds. */
  now: number;
}

/** What finished runs have made: base, method, rank, size, from which run. */
export function Adapters(props: IProps): React.JSX.Element | null {
  const { adapters, trans, now } = props;
  const names = adapters.map(one => one.name);
  const parts = React.useMemo(() => takeApart(names), [names.join('\n')]);
  if (!adapters.length) {
    return null;
  }
  return (
    <section className="llf-Adapters" aria-label={trans.__('Adapters')}>
      <h4>
        {trans.__('Adapters and models')}{' '}
        <span className="llf-2">{props.total}</span>
      </h4>
      <ul>
        {adapters.map(one => (
          <li key={one.run}>
            <button
              className="llf-RunsPanel-row is-adapter"
              title={`${one.name}\n${one.run}`}
              onClick={() => props.onOpen(one.run)}
            >
              <Name parts={parts.get(one.name)!} />
              <span>{bytes(one.bytes)}</span>
              <span className="llf-RunsPanel-info llf-ellipsis">
                {[
                  lastPart(one.base),
                  one.rank === null
                    ? one.method
                    : trans.__('%1 rank %2', one.method, one.rank)
                ].join(', ')}
              </span>
              <span className="llf-RunsPanel-age">
                {one.ended === null ? '' : age(now - one.ended, trans)}
              </span>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
