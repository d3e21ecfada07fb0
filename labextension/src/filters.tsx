import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { RunState } from './api';
import { stateLabel } from './format';
import {
  BY_METRIC,
  type Grouping,
  type IFilter,
  type RunsModel
} from './model';

const STATES: RunState[] = [
  'running',
  'queued',
  'finished',
  'stopped',
  'failed',
  'lost'
];
const SEARCH_DELAY = 250;
const MAX_QUERY_LENGTH = 200; // characters; the server refuses longer searches

interface IFiltersProps {
  model: RunsModel;
  trans: TranslationBundle;
  onNew: () => void;
}

/** The search box, the lists for state, order and grouping, and the button for a new run. */
export function Filters({
  model,
  trans,
  onNew
}: IFiltersProps): React.JSX.Element {
  const [text, setText] = React.useState(model.filter.query);
  const timer = React.useRef<number>(0);
  React.useEffect(() => () => window.clearTimeout(timer.current), []);
  const search = (query: string): void => {
    setText(query);
    window.clearTimeout(timer.current);
    timer.current = window.setTimeout(
      () => void model.setFilter({ query }),
      SEARCH_DELAY
    );
  };
  const renderSelect = (
    label: string,
    name: keyof IFilter,
    options: [string, string][]
  ): React.JSX.Element => (
    <select
      aria-label={label}
      value={model.filter[name]}
      onChange={event => void model.setFilter({ [name]: event.target.value })}
    >
      {options.map(([value, word]) => (
        <option key={value} value={value}>
          {word}
        </option>
      ))}
    </select>
  );
  const { sort } = model.filter;
  const byMetric = model.sortMetrics.map(
    ({ name, label, better }): [string, string] => [
      BY_METRIC + name,
      better === 'higher'
        ? trans.__('Highest eval %1', label)
        : trans.__('Lowest eval %1', label)
    ]
  );
  if (sort.startsWith(BY_METRIC) && !model.sortMetric) {
    // no run has the metric now, or the first response is on its way
    const name = sort.slice(`${BY_METRIC}eval_`.length);
    byMetric.push([sort, trans.__('By %1', name)]);
  }
  const groups: [Grouping, string][] = [
    ['', trans.__('No grouping')],
    ['dataset', trans.__('By data')],
    ['model', trans.__('By model')]
  ];
  return (
    <div className="llf-Filters" role="search">
      <input
        type="text"
        aria-label={trans.__('Search runs')}
        placeholder={trans.__('Search runs')}
        title={trans.__('Searches name, id, tags, note, model and data')}
        maxLength={MAX_QUERY_LENGTH}
        value={text}
        onChange={event => search(event.target.value)}
        onKeyDown={event => {
          if (event.key === 'Escape' && text) {
            event.preventDefault();
            search('');
          }
        }}
      />
      <button className="llf-primary" onClick={onNew}>
        {trans.__('New run')}
      </button>
      <div className="llf-Filters-row">
        {renderSelect(trans.__('State'), 'state', [
          ['', trans.__('All states')],
          ...STATES.map((state): [string, string] => [
            state,
            stateLabel(state, trans)
          ])
        ])}
        {renderSelect(trans.__('Sort by'), 'sort', [
          ['newest', trans.__('Newest')],
          ['oldest', trans.__('Oldest')],
          ['loss', trans.__('Lowest loss')],
          ...byMetric,
          ['name', trans.__('Name')],
          ['state', trans.__('State')]
        ])}
        {renderSelect(trans.__('Group by'), 'group', groups)}
      </div>
    </div>
  );
}
