import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IAdapter } from './api';
import { formatAge } from './format';
import { formatBytes } from './numbers';
import { baseName } from './run_list';
import { RunName, splitNames } from './run_name';

interface IAdaptersProps {
  adapters: readonly IAdapter[];
  total: number;
  trans: TranslationBundle;
  onOpen: (run: string) => void;
  onChat: (run: string) => void;
  /** Unix seconds. */
  now: number;
}

/**
 * The list of results below the runs: name, size, base model, method and rank. A click opens the run; *Chat* beside it
 * opens a chat with the result.
 */
export function Adapters(props: IAdaptersProps): React.JSX.Element | null {
  const { adapters, trans, now } = props;
  const names = adapters.map(adapter => adapter.name);
  const parts = React.useMemo(() => splitNames(names), [names.join('\n')]);
  if (!adapters.length) {
    return null;
  }
  return (
    <section className="llf-Adapters" aria-label={trans.__('Adapters')}>
      <h4>
        {trans.__('Adapters and models')}{' '}
        <span className="llf-secondary">{props.total}</span>
      </h4>
      <ul>
        {adapters.map(adapter => (
          <li key={adapter.run} className="llf-Adapters-item">
            <button
              className="llf-RunsPanel-row is-adapter"
              title={`${adapter.name}\n${adapter.run}`}
              onClick={() => props.onOpen(adapter.run)}
            >
              <RunName parts={parts.get(adapter.name)!} />
              <span>{formatBytes(adapter.bytes)}</span>
              <span className="llf-RunsPanel-info llf-ellipsis">
                {[
                  baseName(adapter.base),
                  adapter.rank === null
                    ? adapter.method
                    : trans.__('%1 rank %2', adapter.method, adapter.rank)
                ].join(', ')}
              </span>
              <span className="llf-RunsPanel-age">
                {adapter.ended === null
                  ? ''
                  : formatAge(now - adapter.ended, trans)}
              </span>
            </button>
            <button
              className="llf-link"
              aria-label={trans.__('Chat with %1', adapter.name)}
              onClick={() => props.onChat(adapter.run)}
            >
              {trans.__('Chat')}
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
