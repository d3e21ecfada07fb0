import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IRun } from './api';
import { age, reasonText, stepText, written } from './format';
import { quantity } from './numbers';
import type { Group } from './model';
import { Name, type Parts, takeApart } from './names';
import { Spark } from './spark';

interface IListProps {
  runs: readonly IRun[];
  trans: TranslationBundle;
  group: Group;
  /** Whether the runs are in the order of their losses, which are shown then. */
  byLoss: boolean;
  isSelected: (id: string) => boolean;
  onOpen: (id: string) => void;
  onToggle: (id: string) => void;
  onSelect: (...ids: string[]) => void;
  /** The run whose details were left just now: its row takes the focus. */
  cameFrom?: React.MutableRefObject<string | null>;
  /** Unix seconds. */
  now: number;
}

/**
 * The runs, grouped if a grouping is selected. One tab stop: arrows, Home and End
 * move between the rows, Enter opens one, Space chooses it beside others. Shift
 * with a click or an arrow chooses all rows from the one that was reached before.
 */
export function RunList(props: IListProps): React.JSX.Element {
  const { runs, trans } = props;
  const { cameFrom } = props;
  const [current, setCurrent] = React.useState(cameFrom?.current ?? null);
  const list = React.useRef<HTMLDivElement>(null);
  React.useEffect(() => {
    if (cameFrom?.current) {
      const row = `[data-run="${cameFrom.current}"]`;
      cameFrom.current = null;
      list.current?.querySelector<HTMLElement>(row)?.focus();
    }
  }, []);
  const stop = runs.some(run => run.id === current) ? current : runs[0]?.id;
  const names = runs.map(run => run.name);
  const parts = React.useMemo(() => takeApart(names), [names.join('\n')]);
  const anchor = React.useRef<string | null>(null);
  /** Chooses the rows between the anchor and one of them. */
  const reach = (id: string): void => {
    const ids = Array.from(
      list.current?.querySelectorAll<HTMLElement>('[data-run]') ?? []
    ).map(row => row.dataset.run!);
    if (anchor.current === null || !ids.includes(anchor.current)) {
      anchor.current = id;
    }
    const ends = [ids.indexOf(anchor.current), ids.indexOf(id)];
    props.onSelect(...ids.slice(Math.min(...ends), Math.max(...ends) + 1));
  };
  const focused = React.useRef<{ id: string; place: number } | null>(null);
  React.useEffect(() => {
    const was = focused.current;
    if (!was || runs.some(run => run.id === was.id)) {
      return;
    }
    // The row that had the focus is gone: the one in its place gets it.
    focused.current = null;
    if (document.activeElement === document.body) {
      const rows = list.current?.querySelectorAll<HTMLElement>('[data-run]');
      rows?.[Math.min(was.place, rows.length - 1)]?.focus();
    }
  }, [runs]);

  const onKeyDown = (event: React.KeyboardEvent): void => {
    const rows = Array.from(
      list.current?.querySelectorAll<HTMLElement>('[data-run]') ?? []
    );
    const at = rows.indexOf(event.target as HTMLElement);
    if (at >= 0 && event.key === ' ') {
      event.preventDefault();
      anchor.current = rows[at].dataset.run!;
      props.onToggle(rows[at].dataset.run!);
      return;
    }
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
    const row = rows[to[event.key]];
    row.focus();
    if (event.shiftKey) {
      anchor.current ??= rows[at].dataset.run!;
      reach(row.dataset.run!);
    } else {
      anchor.current = row.dataset.run!;
    }
  };

  return (
    <div
      ref={list}
      onKeyDown={onKeyDown}
      onFocus={({ target }) => {
        const rows = list.current?.querySelectorAll('[data-run]') ?? [];
        const place = Array.from<Element>(rows).indexOf(target);
        focused.current = place < 0 ? null : { id: target.dataset.run!, place };
      }}
      onBlur={({ relatedTarget }) => {
        if (relatedTarget) {
          focused.current = null;
        }
      }}
    >
      {divided(runs, props.group).map(([name, members]) => (
        <section key={name} aria-label={name || trans.__('Runs')}>
          {name && (
            <h4 className="llf-RunsPanel-group">
              <span className="llf-ellipsis">{name}</span>{' '}
              <span className="llf-2">
                {trans._n('%1 run', '%1 runs', members.length)}
              </span>
            </h4>
          )}
          <ul className="llf-RunsPanel-list" aria-label={trans.__('Runs')}>
            {members.map(run => (
              <RunRow
                key={run.id}
                {...props}
                run={run}
                parts={parts.get(run.name)!}
                tabStop={stop === run.id}
                onFocus={() => setCurrent(run.id)}
                onReach={() => reach(run.id)}
                onAnchor={() => {
                  anchor.current = run.id;
                }}
              />
            ))}
          </ul>
        </section>
      ))}
    </div>
  );
}

/** Runs by what they are divided by, in the order in which each comes first. */
export function divided(
  runs: readonly IRun[],
  group: Group
): [string, IRun[]][] {
  const found = new Map<string, IRun[]>();
  for (const run of runs) {
    const name = group === '' ? '' : lastPart(run[group]) || '–';
    found.set(name, [...(found.get(name) ?? []), run]);
  }
  return Array.from(found);
}

/** The last part of a path; a name as it is. */
export function lastPart(text: string): string {
  return text.split('/').filter(Boolean).pop() ?? text;
}

interface IRowProps extends IListProps {
  run: IRun;
  parts: Parts;
  tabStop: boolean;
  onFocus: () => void;
  /** The rows up to this one are chosen. */
  onReach: () => void;
  /** What is chosen with Shift begins here. */
  onAnchor: () => void;
}

function RunRow(props: IRowProps): React.JSX.Element {
  const { run, trans, now } = props;
  const share = run.total ? Math.min(run.step / run.total, 1) : 0;
  const live = run.state === 'running' || run.state === 'stopping';
  const chosen = props.isSelected(run.id);
  const counts = props.byLoss ? undefined : run.counted[0];
  const loss = run.loss === null ? '' : quantity(run.loss);
  const number = counts ? written(counts) : loss;
  return (
    <li className="llf-RunsPanel-item">
      <button
        className={`llf-RunsPanel-row is-${run.state}${chosen ? ' is-chosen' : ''}`}
        data-run={run.id}
        aria-pressed={chosen}
        tabIndex={props.tabStop ? 0 : -1}
        title={`${run.name}\n${run.id}`}
        onFocus={props.onFocus}
        onClick={event => {
          if (event.shiftKey) {
            props.onReach();
            return;
          }
          props.onAnchor();
          if (event.ctrlKey || event.metaKey) {
            props.onToggle(run.id);
          } else {
            props.onOpen(run.id);
          }
        }}
        onContextMenu={() => {
          if (!chosen) {
            props.onSelect(run.id);
          }
        }}
      >
        <span className="llf-dot" aria-hidden="true" />
        <Name parts={props.parts} />
        <Spark values={run.spark} />
        {number && (
          <span
            className="llf-RunsPanel-loss"
            title={counts ? counts.label : trans.__('Training loss')}
          >
            {number}
          </span>
        )}
        <span
          className="llf-RunsPanel-info llf-ellipsis"
          title={reasonText(run) || undefined}
        >
          {stepText(run, trans)}
        </span>
        <span className="llf-RunsPanel-age">
          {run.created === null ? '' : age(now - run.created, trans)}
        </span>
        {live && (
          <span className="llf-Progress is-thin" aria-hidden="true">
            <i style={{ width: `${100 * share}%` }} />
          </span>
        )}
        {run.tags.length > 0 && (
          <span className="llf-RunsPanel-tags llf-ellipsis">
            {run.tags.join(', ')}
          </span>
        )}
      </button>
    </li>
  );
}
