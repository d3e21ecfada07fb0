import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { formatNumber } from './numbers';

/** The checkpoints, last one first, each with the evaluation loss that was measured at its step, if any. */
export function Checkpoints(props: {
  steps: readonly number[];
  evaluated?: [number[], (number | null)[]];
  onBranch: (step: number) => void;
  onChat: (step: number) => void;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { trans } = props;
  const [evalSteps, values] = props.evaluated ?? [[], []];
  const losses = new Map(
    props.steps.map(step => [step, values[evalSteps.indexOf(step)] ?? null])
  );
  const measured = Array.from(losses.values()).filter(loss => loss !== null);
  const best = measured.length > 1 ? Math.min(...measured) : null;
  return (
    <ul>
      {[...props.steps].reverse().map(step => {
        const loss = losses.get(step) ?? null;
        return (
          <li key={step} className="llf-Details-checkpoint">
            <span>{trans.__('step %1', step)}</span>
            {loss !== null && (
              <span
                className="llf-secondary"
                title={trans.__('Evaluation loss')}
              >
                {loss === best
                  ? trans.__('%1, best', formatNumber(loss))
                  : formatNumber(loss)}
              </span>
            )}
            <button
              className="llf-link"
              aria-label={trans.__('Branch… at step %1', step)}
              onClick={() => props.onBranch(step)}
            >
              {trans.__('Branch…')}
            </button>
            <button
              className="llf-link"
              aria-label={trans.__('Chat with step %1', step)}
              onClick={() => props.onChat(step)}
            >
              {trans.__('Chat')}
            </button>
          </li>
        );
      })}
    </ul>
  );
}
