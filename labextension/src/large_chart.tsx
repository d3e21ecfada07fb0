import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IChart } from './api';
import { formatMetric } from './format';

const WIDTH = 240;
const HEIGHT = 84;

/** The curves of a run, those of evaluations dashed; nothing before a second step is logged. */
export function LargeChart({
  chart: { title, form, lines: all },
  trans
}: {
  chart: IChart;
  trans: TranslationBundle;
}): React.JSX.Element | null {
  const lines = Object.entries(all).filter(([, [steps]]) => steps.length > 1);
  const values = lines
    .flatMap(([, [, y]]) => y)
    .filter((value): value is number => value !== null);
  if (!values.length) {
    return null;
  }
  const last = Math.max(...lines.map(([, [steps]]) => steps[steps.length - 1]));
  const low = Math.min(...values);
  const high = Math.max(...values);
  const span = high - low || 1; // a flat curve is drawn at the bottom
  const path = ([steps, y]: [number[], (number | null)[]]): string =>
    steps
      .map((step, index) => [step, y[index]] as const)
      .filter((pair): pair is readonly [number, number] => pair[1] !== null)
      .map(
        ([step, value]) =>
          `${(step / last) * WIDTH},${2 + (1 - (value - low) / span) * (HEIGHT - 4)}`
      )
      .join(' ');
  const write = (value: number): string => formatMetric({ value, form });
  return (
    <figure className="llf-Details-curves">
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        role="img"
        aria-label={trans.__(
          '%1 from %2 to %3 over %4 steps',
          title,
          write(high),
          write(low),
          last
        )}
      >
        {lines.map(([name, line]) => (
          <polyline
            key={name}
            className={name.startsWith('eval_') ? 'is-held-out' : 'is-training'}
            points={path(line)}
          />
        ))}
      </svg>
      <figcaption className="llf-secondary">
        {trans.__(
          '%1, %2 to %3, %4 steps; solid: training, dashed: evaluation',
          title,
          write(high),
          write(low),
          last
        )}
      </figcaption>
    </figure>
  );
}
