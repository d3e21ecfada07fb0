import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IRun } from './api';
import { age, monitorCode, stepText } from './format';

interface IListProps {
  runs: readonly IRun[];
  trans: TranslationBundle;
  copy: (text: string, said: string) => void;
  /** Unix seconds. */
  now: number;
}

/**
 * The runs, newest first. One tab stop: arrows, Home and End move between the
 * rows, Enter opens one.
 */
export function RunList(props: IListProps): React.JSX.Element {
  const { runs, trans } = props;
  const [open, setOpen] = React.useState<string | null>(null);
  const [current, setCurrent] = React.useState<string | null>(null);
  const list = React.useRef<HTMLUListElement>(null);
  const stop = runs.some(run => run.id === current) ? current : runs[0]?.id;

  const onKeyDown = (event: React.KeyboardEvent): void => {
    const rows = Array.from(
      list.current?.querySelectorAll<HTMLElement>('[data-run]') ?? []
    );
    const at = rows.indexOf(event.target as HTMLElement);
    const to: Record<string, number> = {
      ArrowDown: Math.min(at + 1, rows.length - 1),
      ArrowUp: Math.max(at - 1, 0),
      Home: 0,
      End: rows.length - 1
    };
    if (at < 0 || to[event.key] === undefined) {
      return;
    }
    event.preventDefault();
    rows[to[event.key]].focus();
  };

  return (
    <ul
      ref={list}
      className="llf-RunsPanel-list"
      aria-label={trans.__('Runs, newest first')}
      onKeyDown={onKeyDown}
    >
      {runs.map(run => (
        <RunRow
          key={run.id}
          {...props}
          run={run}
          open={open === run.id}
          tabStop={stop === run.id}
          onFocus={() => setCurrent(run.id)}
          onToggle={() => setOpen(open === run.id ? null : run.id)}
        />
      ))}
    </ul>
  );
}

interface IRowProps extends IListProps {
  run: IRun;
  open: boolean;
  tabStop: boolean;
  onFocus: () => void;
  onToggle: () => void;
}

function RunRow(props: IRowProps): React.JSX.Element {
  const { run, open, trans, now } = props;
  const share = run.total ? Math.min(run.step / run.total, 1) : 0;
  const live = run.state === 'running' || run.state === 'stopping';
  return (
    <li className="llf-RunsPanel-item">
      <button
        className={`llf-RunsPanel-row is-${run.state}`}
        data-run={run.id}
        aria-expanded={open}
        tabIndex={props.tabStop ? 0 : -1}
        title={run.id}
        onFocus={props.onFocus}
        onClick={props.onToggle}
      >
        <span className="llf-dot" aria-hidden="true" />
        <span className="llf-RunsPanel-name llf-ellipsis">{run.name}</span>
        <span className="llf-RunsPanel-age">
          {run.created === null ? '' : age(now - run.created, trans)}
        </span>
        <span className="llf-RunsPanel-info llf-ellipsis">
          {stepText(run, trans)}
        </span>
        {live && (
          <span className="llf-Progress is-thin" aria-hidden="true">
            <i style={{ width: `${100 * share}%` }} />
          </span>
        )}
      </button>
      {open && <RunDetails {...props} />}
    </li>
  );
}

function RunDetails({ run, trans, copy }: IRowProps): React.JSX.Element {
  const code = monitorCode(run.id);
  return (
    <div className="llf-RunsPanel-details">
      {run.reason && <p className="llf-RunsPanel-why">{run.reason}</p>}
      <pre>{code}</pre>
      <button
        onClick={() =>
          copy(code, trans.__('Copied. Paste it into a cell to see the run.'))
        }
      >
        {trans.__('Copy code')}
      </button>
    </div>
  );
}
