import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IKeyMetric, IRun, ISortMetric } from './api';
import { CodeText } from './code_text';
import { formatAge, reasonText, progressText, formatMetric } from './format';
import { formatNumber } from './numbers';
import type { Grouping } from './model';
import { RunName, type NameParts, splitNames } from './run_name';
import { Sparkline } from './sparkline';

interface IRunListProps {
  runs: readonly IRun[];
  trans: TranslationBundle;
  group: Grouping;
  /** Whether the list is sorted by loss; each row then shows the loss instead of its first key metric. */
  sortedByLoss: boolean;
  /** The metric of evaluations that the list is sorted by, which each row then shows. */
  sortMetric?: ISortMetric | null;
  isSelected: (id: string) => boolean;
  /** Whether a run was asked to resume, and has not begun to. */
  isResuming: (run: IRun) => boolean;
  onOpen: (id: string) => void;
  onToggle: (id: string) => void;
  onSelect: (...ids: string[]) => void;
  /** Id of the run whose details were just closed: its row gets the focus. */
  restoreFocusTo?: React.MutableRefObject<string | null>;
  /** Unix seconds. */
  now: number;
}

/**
 * The list of runs, grouped if a grouping is set. It is one tab stop: arrow keys, Home and End move between the rows,
 * Enter opens a run, Space selects or deselects it. Shift with a click or an arrow key selects the range from the row
 * that was reached before.
 */
export function RunList(props: IRunListProps): React.JSX.Element {
  const { runs, trans } = props;
  const { restoreFocusTo } = props;
  const [focusedId, setFocusedId] = React.useState(
    restoreFocusTo?.current ?? null
  );
  const list = React.useRef<HTMLDivElement>(null);
  React.useEffect(() => {
    if (restoreFocusTo?.current) {
      const row = `[data-run="${restoreFocusTo.current}"]`;
      restoreFocusTo.current = null;
      list.current?.querySelector<HTMLElement>(row)?.focus();
    }
  }, []);
  const tabStopId = runs.some(run => run.id === focusedId)
    ? focusedId
    : runs[0]?.id;
  const names = runs.map(run => run.name);
  const parts = React.useMemo(() => splitNames(names), [names.join('\n')]);
  const anchor = React.useRef<string | null>(null);
  /** Selects the rows from the anchor to a row. */
  const selectRange = (id: string): void => {
    const ids = Array.from(
      list.current?.querySelectorAll<HTMLElement>('[data-run]') ?? []
    ).map(row => row.dataset.run!);
    if (anchor.current === null || !ids.includes(anchor.current)) {
      anchor.current = id;
    }
    const ends = [ids.indexOf(anchor.current), ids.indexOf(id)];
    props.onSelect(...ids.slice(Math.min(...ends), Math.max(...ends) + 1));
  };
  const lastFocused = React.useRef<{ id: string; index: number } | null>(null);
  React.useEffect(() => {
    const previous = lastFocused.current;
    if (!previous || runs.some(run => run.id === previous.id)) {
      return;
    }
    // The focused row was removed: focus the row that took its place.
    lastFocused.current = null;
    if (document.activeElement === document.body) {
      const rows = list.current?.querySelectorAll<HTMLElement>('[data-run]');
      rows?.[Math.min(previous.index, rows.length - 1)]?.focus();
    }
  }, [runs]);

  const onKeyDown = (event: React.KeyboardEvent): void => {
    const rows = Array.from(
      list.current?.querySelectorAll<HTMLElement>('[data-run]') ?? []
    );
    const index = rows.indexOf(event.target as HTMLElement);
    if (index >= 0 && event.key === ' ') {
      event.preventDefault();
      anchor.current = rows[index].dataset.run!;
      props.onToggle(rows[index].dataset.run!);
      return;
    }
    const targets: Record<string, number> = {
      ArrowDown: Math.min(index + 1, rows.length - 1),
      ArrowUp: Math.max(index - 1, 0),
      Home: 0,
      End: rows.length - 1
    };
    if (index < 0 || targets[event.key] === undefined) {
      return;
    }
    event.preventDefault();
    const row = rows[targets[event.key]];
    row.focus();
    if (event.shiftKey) {
      anchor.current ??= rows[index].dataset.run!;
      selectRange(row.dataset.run!);
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
        const index = Array.from<Element>(rows).indexOf(target);
        lastFocused.current =
          index < 0 ? null : { id: target.dataset.run!, index };
      }}
      onBlur={({ relatedTarget }) => {
        if (relatedTarget) {
          lastFocused.current = null;
        }
      }}
    >
      {groupRuns(runs, props.group).map(([name, members]) => (
        <section key={name} aria-label={name || trans.__('Runs')}>
          {name && (
            <h4 className="llf-RunsPanel-group">
              <span className="llf-ellipsis">{name}</span>{' '}
              <span className="llf-secondary">
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
                tabStop={tabStopId === run.id}
                onFocus={() => setFocusedId(run.id)}
                onSelectRange={() => selectRange(run.id)}
                onSetAnchor={() => {
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

/** Groups runs by data set or model; the groups are in the order of their first runs. */
export function groupRuns(
  runs: readonly IRun[],
  group: Grouping
): [string, IRun[]][] {
  const groups = new Map<string, IRun[]>();
  for (const run of runs) {
    const name = group === '' ? '' : baseName(run[group]) || '–';
    groups.set(name, [...(groups.get(name) ?? []), run]);
  }
  return Array.from(groups);
}

/** Returns the last part of a path or hub id. */
export function baseName(text: string): string {
  return text.split('/').filter(Boolean).pop() ?? text;
}

interface IRowProps extends IRunListProps {
  run: IRun;
  parts: NameParts;
  tabStop: boolean;
  onFocus: () => void;
  /** Selects the range from the anchor to this row. */
  onSelectRange: () => void;
  /** Makes this row the start of a range that Shift selects. */
  onSetAnchor: () => void;
}

/** The metric in a row: the one that the list is sorted by, else the first key metric; undefined for the loss. */
function shownMetric({
  run,
  sortMetric,
  sortedByLoss
}: IRowProps): IKeyMetric | undefined {
  if (!sortMetric) {
    return sortedByLoss ? undefined : run.counted[0];
  }
  const value = run.evaluated?.[sortMetric.name];
  return value === undefined ? undefined : { ...sortMetric, value };
}

/** The label of a metric without its data, which the title of the number says: `accuracy` of `Training accuracy`. */
function shortLabel(label: string): string {
  const short = label.replace(/^(training|held-out) /i, '');
  return short[1] === short[1]?.toUpperCase()
    ? short
    : short[0].toLowerCase() + short.slice(1);
}

function RunRow(props: IRowProps): React.JSX.Element {
  const { run, trans, now } = props;
  const share = run.total ? Math.min(run.step / run.total, 1) : 0;
  const live = run.state === 'running' || run.state === 'stopping';
  const selected = props.isSelected(run.id);
  const metric = shownMetric(props);
  const loss =
    run.loss === null || props.sortMetric ? '' : formatNumber(run.loss);
  const value = metric ? formatMetric(metric) : loss;
  const label = metric ? metric.label : trans.__('Training loss');
  return (
    <li className="llf-RunsPanel-item">
      <button
        className={`llf-RunsPanel-row is-${run.state}${run.finding ? ' has-finding' : ''}${selected ? ' is-selected' : ''}`}
        data-run={run.id}
        aria-pressed={selected}
        tabIndex={props.tabStop ? 0 : -1}
        title={`${run.name}\n${run.id}`}
        onFocus={props.onFocus}
        onClick={event => {
          if (event.shiftKey) {
            props.onSelectRange();
            return;
          }
          props.onSetAnchor();
          if (event.ctrlKey || event.metaKey) {
            props.onToggle(run.id);
          } else {
            props.onOpen(run.id);
          }
        }}
        onContextMenu={() => {
          if (!selected) {
            props.onSelect(run.id);
          }
        }}
      >
        <span className="llf-dot" aria-hidden="true" />
        <RunName parts={props.parts} />
        <Sparkline values={run.spark} />
        {value && (
          <>
            <span className="llf-RunsPanel-metric llf-ellipsis" title={label}>
              {shortLabel(label)}
            </span>
            <span className="llf-RunsPanel-loss" title={label}>
              {value}
            </span>
          </>
        )}
        <span
          className="llf-RunsPanel-info llf-ellipsis"
          title={reasonText(run) || undefined}
        >
          <CodeText
            text={
              props.isResuming(run)
                ? trans.__('Resuming…')
                : progressText(run, trans)
            }
          />
        </span>
        <span className="llf-RunsPanel-age">
          {run.created === null ? '' : formatAge(now - run.created, trans)}
        </span>
        {live && (
          <span className="llf-Progress is-thin" aria-hidden="true">
            <i style={{ width: `${100 * share}%` }} />
          </span>
        )}
        {(run.place || run.tags.length > 0) && (
          <span className="llf-RunsPanel-tags llf-ellipsis">
            {[run.place, ...run.tags].filter(Boolean).join(', ')}
          </span>
        )}
      </button>
    </li>
  );
}
