import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IKeyMetric } from './api';
import { formatMetric } from './format';
import {
  formatBytes,
  formatCount,
  formatNumber,
  formatRate,
  type LoggedValue
} from './numbers';

/** The last values of the most important metrics; nothing before the first is logged. */
export function KeyMetrics({
  numbers,
  counted,
  trans
}: {
  numbers: Record<string, LoggedValue>;
  counted: readonly IKeyMetric[];
  trans: TranslationBundle;
}): React.JSX.Element | null {
  const metrics: [string, string, (value: LoggedValue) => string][] = [
    ['loss', trans.__('Training loss'), formatNumber],
    ['eval_loss', trans.__('Evaluation loss'), formatNumber],
    ['learning_rate', trans.__('Learning rate'), formatRate],
    ['tokens_per_second', trans.__('Tokens per second'), formatCount],
    ['memory', trans.__('Memory'), formatBytes],
    ['grad_norm', trans.__('Gradient norm'), formatNumber]
  ];
  const shown = counted.map(one => [one.label, formatMetric(one)]);
  for (const [name, label, format] of metrics) {
    const value = numbers[name];
    if (value !== null && value !== undefined) {
      shown.push([label, format(value)]);
    }
  }
  if (!shown.length) {
    return null; // nothing is logged yet
  }
  return (
    <dl className="llf-Details-numbers">
      {shown.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
