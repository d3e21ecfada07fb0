import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { ICounted, IDetails } from './api';
import { Crumbs } from './crumbs';
import { LIVE } from './model';
import { printable, stateWord, written } from './format';
import { bytes, count, duration, type Logged, rate, quantity } from './numbers';

const WIDTH = 240;
const HEIGHT = 84;
const SHOWN_KEYS = 12;

interface IProps {
  details: IDetails;
  trans: TranslationBundle;
  onBack: () => void;
  onMonitor: () => void;
  onStop: () => void;
  /** Branches at a checkpoint. */
  onBranch: (step: number) => void;
  onMore: (event: React.MouseEvent) => void;
}

/** One run: progress, numbers, curves, what was found, checkpoints, config, environment, answers, log. */
export function Details(props: IProps): React.JSX.Element {
  const { details, trans } = props;
  const { row, meta, status } = details;
  const [all, setAll] = React.useState(false);
  const keys = Object.entries(details.config ?? {});
  const head = React.useRef<HTMLButtonElement>(null);
  React.useEffect(() => head.current?.focus(), [details.id]);
  return (
    <article className="llf-Details" aria-label={meta.name}>
      <header>
        <Crumbs button={head} trans={trans} onBack={props.onBack}>
          <h3 className="llf-ellipsis" title={`${meta.name}\n${details.id}`}>
            {meta.name}
          </h3>
        </Crumbs>
        <span className={`llf-State is-${status.state}`}>
          {stateWord(status.state, trans)}
        </span>
      </header>
      {row && row.total ? (
        <>
          <div
            className="llf-Progress"
            role="progressbar"
            aria-label={trans.__('Progress')}
            aria-valuenow={row.step}
            aria-valuemin={0}
            aria-valuemax={row.total}
          >
            <i
              style={{ width: `${100 * Math.min(1, row.step / row.total)}%` }}
            />
          </div>
          <p className="llf-Details-steps">
            <span>{trans.__('step %1 of %2', row.step, row.total)}</span>
            {row.remaining !== null && (
              <span>{trans.__('%1 left', duration(row.remaining))}</span>
            )}
          </p>
        </>
      ) : null}
      {status.reason && (
        <p className="llf-RunsPanel-why">{printable(status.reason)}</p>
      )}
      <div className="llf-row">
        <button className="llf-primary" onClick={props.onMonitor}>
          {trans.__('Open monitor')}
        </button>
        {LIVE.includes(status.state) && (
          <button onClick={props.onStop}>{trans.__('Stop')}</button>
        )}
        <button aria-haspopup="menu" onClick={props.onMore}>
          {trans.__('More…')}
        </button>
      </div>
      {details.numbers && (
        <Numbers
          numbers={details.numbers}
          counted={details.counted ?? []}
          trans={trans}
        />
      )}
      {details.curves && <Curves curves={details.curves} trans={trans} />}
      {(details.events ?? [])
        .filter(event => event.type !== 'evaluation')
        .map((event, place) => (
          <Told key={place} event={event} trans={trans} />
        ))}
      {details.checkpoints && details.checkpoints.length > 0 && (
        <Part title={trans.__('Checkpoints')}>
          <Checkpoints
            steps={details.checkpoints}
            evaluated={details.curves?.eval_loss}
            onBranch={props.onBranch}
            trans={trans}
          />
        </Part>
      )}
      {meta.note && (
        <Part title={trans.__('Note')}>
          <p className="llf-RunsPanel-why">{meta.note}</p>
        </Part>
      )}
      {keys.length > 0 && (
        <Part
          title={trans.__('Config')}
          note={trans.__('changed from the defaults')}
        >
          <Facts facts={all ? keys : keys.slice(0, SHOWN_KEYS)} />
          {keys.length > SHOWN_KEYS && (
            <button className="llf-link" onClick={() => setAll(!all)}>
              {all
                ? trans.__('Fewer keys')
                : trans.__('All %1 keys', keys.length)}
            </button>
          )}
        </Part>
      )}
      {details.environment && Object.keys(details.environment).length > 0 && (
        <Part title={trans.__('Environment')}>
          <Facts facts={Object.entries(details.environment)} />
        </Part>
      )}
      {details.answers && details.answers.length > 0 && (
        <Part title={trans.__('Last completions')}>
          {details.answers.map(answer => (
            <p key={answer.prompt} className="llf-RunsPanel-why">
              <span className="llf-2">{answer.prompt}</span>
              <br />
              {answer.text || trans.__('(empty)')}
            </p>
          ))}
        </Part>
      )}
      {details.log && details.log.length > 0 && (
        <Part title={trans.__('Log')}>
          <pre tabIndex={0} aria-label={trans.__('Last lines of the log')}>
            {details.log.join('\n')}
          </pre>
        </Part>
      )}
    </article>
  );
}

function Part(props: {
  title: string;
  note?: string;
  children: React.ReactNode;
}): React.JSX.Element {
  return (
    <section aria-label={props.title}>
      <h4>
        {props.title} <span className="llf-2">{props.note}</span>
      </h4>
      {props.children}
    </section>
  );
}

/** The checkpoints, the last one first, with their evaluation loss where one was measured at that step. */
function Checkpoints(props: {
  steps: readonly number[];
  evaluated?: [number[], (number | null)[]];
  onBranch: (step: number) => void;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { trans } = props;
  const [at, values] = props.evaluated ?? [[], []];
  const losses = new Map(
    props.steps.map(step => [step, values[at.indexOf(step)] ?? null])
  );
  const known = Array.from(losses.values()).filter(loss => loss !== null);
  const best = known.length > 1 ? Math.min(...known) : null;
  return (
    <ul>
      {[...props.steps].reverse().map(step => {
        const loss = losses.get(step) ?? null;
        return (
          <li key={step} className="llf-Details-checkpoint">
            <span>{trans.__('step %1', step)}</span>
            {loss !== null && (
              <span className="llf-2" title={trans.__('Evaluation loss')}>
                {loss === best
                  ? trans.__('%1, best', quantity(loss))
                  : quantity(loss)}
              </span>
            )}
            <button
              className="llf-link"
              aria-label={trans.__('Branch… at step %1', step)}
              onClick={() => props.onBranch(step)}
            >
              {trans.__('Branch…')}
            </button>
          </li>
        );
      })}
    </ul>
  );
}

function Facts({
  facts
}: {
  facts: readonly [string, unknown][];
}): React.JSX.Element {
  return (
    <dl className="llf-Facts">
      {facts.map(([name, value]) => (
        <React.Fragment key={name}>
          <dt>
            {name.split(/(?<=_)/).map((word, place) => (
              <React.Fragment key={place}>
                {word}
                <wbr />
              </React.Fragment>
            ))}
          </dt>
          <dd>{typeof value === 'string' ? value : JSON.stringify(value)}</dd>
        </React.Fragment>
      ))}
    </dl>
  );
}

function Numbers({
  numbers,
  counted,
  trans
}: {
  numbers: Record<string, Logged>;
  counted: readonly ICounted[];
  trans: TranslationBundle;
}): React.JSX.Element | null {
  const named: [string, string, (value: Logged) => string][] = [
    ['loss', trans.__('Training loss'), quantity],
    ['eval_loss', trans.__('Evaluation loss'), quantity],
    ['learning_rate', trans.__('Learning rate'), rate],
    ['tokens_per_second', trans.__('Tokens per second'), count],
    ['memory', trans.__('Memory'), bytes],
    ['grad_norm', trans.__('Gradient norm'), quantity]
  ];
  const shown = counted.map(one => [one.label, written(one)]);
  for (const [name, label, write] of named) {
    const value = numbers[name];
    if (value !== null && value !== undefined) {
      shown.push([label, write(value)]);
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

function Told({
  event,
  trans
}: {
  event: { type: string; message?: string; fix?: string; says?: string };
  trans: TranslationBundle;
}): React.JSX.Element {
  const level =
    event.type === 'error'
      ? 'error'
      : event.type === 'steered'
        ? 'note'
        : 'warn';
  const words = {
    error: trans.__('Error'),
    warn: trans.__('Warning'),
    note: trans.__('Note')
  };
  return (
    <div className={`llf-Message is-${level}`}>
      <b>{words[level]}</b>
      <div>
        {event.says ?? event.message} {event.fix}
      </div>
    </div>
  );
}

function Curves({
  curves,
  trans
}: {
  curves: Record<string, [number[], (number | null)[]]>;
  trans: TranslationBundle;
}): React.JSX.Element | null {
  const lines = Object.entries(curves).filter(
    ([, [steps]]) => steps.length > 1
  );
  const values = lines
    .flatMap(([, [, y]]) => y)
    .filter((value): value is number => value !== null);
  if (!values.length) {
    return null;
  }
  const last = Math.max(...lines.map(([, [steps]]) => steps[steps.length - 1]));
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const path = ([steps, y]: [number[], (number | null)[]]): string =>
    steps
      .map((step, place) => [step, y[place]] as const)
      .filter((pair): pair is readonly [number, number] => pair[1] !== null)
      .map(
        ([step, value]) =>
          `${(step / last) * WIDTH},${2 + (1 - (value - low) / span) * (HEIGHT - 4)}`
      )
      .join(' ');
  const [first] = lines[0];
  const what = first.endsWith('loss')
    ? trans.__('Losses')
    : trans.__('Rewards');
  return (
    <figure className="llf-Details-curves">
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        role="img"
        aria-label={trans.__(
          '%1 from %2 to %3 over %4 steps',
          what,
          quantity(low + span),
          quantity(low),
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
      <figcaption className="llf-2">
        {trans.__(
          '%1, %2 to %3, %4 steps; solid: training, dashed: evaluation',
          what,
          quantity(low + span),
          quantity(low),
          last
        )}
      </figcaption>
    </figure>
  );
}
