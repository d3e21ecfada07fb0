import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { RunState } from './api';
import { stateWord } from './format';
import type { Group, IFilter, RunsModel } from './model';

const STATES: RunState[] = [
  'running',
  'created',
  'finished',
  'stopped',
  'failed',
  'lost'
];
const WAIT = 250;
const LONGEST = 200; // characters of a search that the server takes

interface IProps {
  model: RunsModel;
  trans: TranslationBundle;
  onNew: () => void;
}

/** Search, filter, order, groups, and a new run. */
export function Filters({ model, trans, onNew }: IProps): React.JSX.Element {
  const [text, setText] = React.useState(model.filter.query);
  const timer = React.useRef<number>(0);
  React.useEffect(() => () => window.clearTimeout(timer.current), []);
  const search = (query: string): void => {
    setText(query);
    window.clearTimeout(timer.current);
    timer.current = window.setTimeout(() => void model.narrow({ query }), WAIT);
  };
  const choose = (
    label: string,
    name: keyof IFilter,
    options: [string, string][]
  ): React.JSX.Element => (
    <select
      aria-label={label}
      value={model.filter[name]}
      onChange={event => void model.narrow({ [name]: event.target.value })}
    >
      {options.map(([value, word]) => (
        <option key={value} value={value}>
          {word}
        </option>
      ))}
    </select>
  );
  const groups: [Group, string][] = [
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
        title={trans.__('Searches name, tags, note, model and data')}
        maxLength={LONGEST}
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
        {choose(trans.__('State'), 'state', [
          ['', trans.__('All states')],
          ...STATES.map((state): [string, string] => [
            state,
            stateWord(state, trans)
          ])
        ])}
        {choose(trans.__('Sort by'), 'sort', [
          ['newest', trans.__('Newest')],
          ['oldest', trans.__('Oldest')],
          ['loss', trans.__('Lowest loss')],
          ['name', trans.__('Name')],
          ['state', trans.__('State')]
        ])}
        {choose(trans.__('Group by'), 'group', groups)}
      </div>
    </div>
  );
}
