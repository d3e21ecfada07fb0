import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { RunsModel } from './model';

interface IHostSelectProps {
  model: RunsModel;
  trans: TranslationBundle;
}

/** Chooses between the runs of this machine and those of other hosts; nothing while there are no others. */
export function HostSelect({
  model,
  trans
}: IHostSelectProps): React.JSX.Element | null {
  const { host } = model;
  if (model.hosts.length === 0 && !host) {
    return null;
  }
  const isKnown = !host || model.hosts.some(one => one.host === host);
  return (
    <select
      className="llf-HostSelect"
      aria-label={trans.__('Machine')}
      title={trans.__('Where the listed runs are')}
      value={host}
      onChange={event => void model.setHost(event.target.value)}
    >
      <option value="">{trans.__('This machine')}</option>
      {model.hosts.map(({ host, runs }) => (
        <option key={host} value={host}>
          {trans._n('%2: %1 run', '%2: %1 runs', runs, host)}
        </option>
      ))}
      {!isKnown && <option value={host}>{host}</option>}
    </select>
  );
}
