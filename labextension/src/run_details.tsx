import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IDetails } from './api';
import { Breadcrumbs } from './breadcrumbs';
import { Checkpoints } from './checkpoints';
import { CodeText } from './code_text';
import { stateLabel, stripControlCharacters } from './format';
import { KeyMetrics } from './key_metrics';
import { LargeChart } from './large_chart';
import { LIVE_STATES, RESUMABLE_STATES, mayHaveModel } from './model';
import { formatDuration } from './numbers';
import { Evaluations, Exports } from './results';
import { drawServers, drawTrained, shareOf } from './trained';

const MAX_CONFIG_KEYS = 12;

interface IRunDetailsProps {
  details: IDetails;
  trans: TranslationBundle;
  /** Whether it is a run of another host, which this machine follows and steers. */
  isElsewhere: boolean;
  onBack: () => void;
  onMonitor: () => void;
  onStop: () => void;
  onResume: () => void;
  /** Whether the run was asked to resume, and has not begun to. */
  isResuming: boolean;
  /** Opens the branch dialog with a checkpoint preselected. */
  onBranch: (step: number) => void;
  onChat: (step: number) => void;
  onEvaluate: () => void;
  onExport: () => void;
  /** Copies the result of a run of another host. */
  onFetch: () => void;
  /** Returns the address of an export as a zip file. */
  exportUrl: (key: string) => string;
  onMore: (event: React.MouseEvent) => void;
}

/** The details of one run: progress, metrics, curves, events, checkpoints, config, environment, completions and log. */
export function RunDetails(props: IRunDetailsProps): React.JSX.Element {
  const { details, trans } = props;
  const { row, meta, status } = details;
  const [showAll, setShowAll] = React.useState(false);
  const configEntries = Object.entries(details.config ?? {});
  const backButton = React.useRef<HTMLButtonElement>(null);
  React.useLayoutEffect(() => backButton.current?.focus(), [details.id]);
  return (
    <article className="llf-Details" aria-label={meta.name}>
      <header>
        <Breadcrumbs button={backButton} trans={trans} onBack={props.onBack}>
          <h3 className="llf-ellipsis" title={`${meta.name}\n${details.id}`}>
            {meta.name}
          </h3>
        </Breadcrumbs>
        <span
          className={`llf-State is-${status.state}${status.finding ? ' has-finding' : ''}`}
        >
          {stateLabel(status.state, trans)}
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
              <span>{trans.__('%1 left', formatDuration(row.remaining))}</span>
            )}
          </p>
        </>
      ) : null}
      {details.doing && <p className="llf-RunsPanel-text">{details.doing}</p>}
      {[status.finding, status.reason].map(
        text =>
          text && (
            <p key={text} className="llf-RunsPanel-text">
              <CodeText text={stripControlCharacters(text)} />
            </p>
          )
      )}
      <div className="llf-row">
        <button className="llf-primary" onClick={props.onMonitor}>
          {trans.__('Open monitor')}
        </button>
        {LIVE_STATES.includes(status.state) && (
          <button onClick={props.onStop}>{trans.__('Stop')}</button>
        )}
        {props.isElsewhere && status.state === 'finished' && (
          <button onClick={props.onFetch}>{trans.__('Fetch result')}</button>
        )}
        {RESUMABLE_STATES.includes(status.state) && (
          <button
            aria-disabled={props.isResuming}
            onClick={() => props.isResuming || props.onResume()}
          >
            {props.isResuming ? trans.__('Resuming…') : trans.__('Resume')}
          </button>
        )}
        {!props.isElsewhere && row && mayHaveModel(row) && (
          <>
            <button onClick={props.onEvaluate}>{trans.__('Evaluate')}</button>
            <button onClick={props.onExport}>{trans.__('Export…')}</button>
          </>
        )}
        <button aria-haspopup="menu" onClick={props.onMore}>
          {trans.__('More…')}
        </button>
      </div>
      {details.numbers && (
        <KeyMetrics
          numbers={details.numbers}
          counted={details.counted ?? []}
          trans={trans}
        />
      )}
      {details.chart && <LargeChart chart={details.chart} trans={trans} />}
      {(details.events ?? [])
        .filter(
          ({ type, message }) =>
            type !== 'error' || !message || !status.reason?.includes(message)
        )
        .map((event, index) => (
          <EventMessage key={index} event={event} trans={trans} />
        ))}
      {details.checkpoints && details.checkpoints.length > 0 && (
        <Section title={trans.__('Checkpoints')}>
          <Checkpoints
            steps={details.checkpoints}
            evaluated={details.chart?.lines.eval_loss}
            onBranch={props.onBranch}
            onChat={props.onChat}
            trans={trans}
          />
        </Section>
      )}
      {details.evaluations && details.evaluations.length > 0 && (
        <Section title={trans.__('Evaluations')}>
          <Evaluations evaluations={details.evaluations} trans={trans} />
        </Section>
      )}
      {details.exports && details.exports.length > 0 && (
        <Section title={trans.__('Exports')}>
          <Exports
            exports={details.exports}
            exportUrl={props.exportUrl}
            trans={trans}
          />
        </Section>
      )}
      {(details.trained?.grid || details.trained?.servers) && (
        <Section title={trans.__('What is trained')}>
          {details.trained.grid && (
            <details>
              <summary>{shareOf(details.trained.grid)}</summary>
              <Drawn data={details.trained.grid} draw={drawTrained} />
            </details>
          )}
          {details.trained.servers && (
            <Drawn data={details.trained.servers} draw={drawServers} />
          )}
        </Section>
      )}
      {meta.note && (
        <Section title={trans.__('Note')}>
          <p className="llf-RunsPanel-text">{meta.note}</p>
        </Section>
      )}
      {configEntries.length > 0 && (
        <Section
          title={trans.__('Config')}
          note={trans.__('changed from the defaults')}
        >
          <KeyValueList
            entries={
              showAll ? configEntries : configEntries.slice(0, MAX_CONFIG_KEYS)
            }
          />
          {configEntries.length > MAX_CONFIG_KEYS && (
            <button className="llf-link" onClick={() => setShowAll(!showAll)}>
              {showAll
                ? trans.__('Fewer keys')
                : trans.__('All %1 keys', configEntries.length)}
            </button>
          )}
        </Section>
      )}
      {details.environment && Object.keys(details.environment).length > 0 && (
        <Section title={trans.__('Environment')}>
          <KeyValueList entries={Object.entries(details.environment)} />
        </Section>
      )}
      {details.answers && details.answers.length > 0 && (
        <Section title={trans.__('Last completions')}>
          {details.answers.map(answer => (
            <p key={answer.prompt} className="llf-RunsPanel-text">
              <span className="llf-secondary">{answer.prompt}</span>
              <br />
              {answer.text || trans.__('(empty)')}
            </p>
          ))}
        </Section>
      )}
      {details.log && details.log.length > 0 && (
        <Section title={trans.__('Log')}>
          <pre tabIndex={0} aria-label={trans.__('Last lines of the log')}>
            <LogLines lines={details.log} />
          </pre>
        </Section>
      )}
    </article>
  );
}

function Section(props: {
  title: string;
  note?: string;
  children: React.ReactNode;
}): React.JSX.Element {
  return (
    <section aria-label={props.title}>
      <h4>
        {props.title} <span className="llf-secondary">{props.note}</span>
      </h4>
      {props.children}
    </section>
  );
}

/** The lines of a log. Those that stay keep their elements, so that a selection in them is kept. */
function LogLines(props: { lines: readonly string[] }): React.JSX.Element {
  const seen = new Map<string, number>();
  return (
    <>
      {props.lines.map(line => {
        const count = (seen.get(line) ?? 0) + 1;
        seen.set(line, count);
        return <span key={`${count} ${line}`}>{`${line}\n`}</span>;
      })}
    </>
  );
}

/** An element that the notebook views share. It is drawn again only if its data has changed, and stays open then. */
function Drawn<Data>(props: {
  data: Data;
  draw: (data: Data) => HTMLElement;
}): React.JSX.Element {
  const box = React.useRef<HTMLDivElement>(null);
  const text = JSON.stringify(props.data);
  React.useEffect(() => {
    const wasOpen = box.current?.querySelector('details')?.open ?? false;
    const drawn = props.draw(JSON.parse(text) as Data);
    if (drawn instanceof HTMLDetailsElement) {
      drawn.open = wasOpen;
    }
    box.current?.replaceChildren(drawn);
  }, [text]);
  return <div ref={box} />;
}

function KeyValueList({
  entries
}: {
  entries: readonly [string, unknown][];
}): React.JSX.Element {
  return (
    <dl className="llf-KeyValueList">
      {entries.map(([name, value]) => (
        <React.Fragment key={name}>
          <dt>
            {name.split(/(?<=_)/).map((word, index) => (
              <React.Fragment key={index}>
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

function EventMessage({
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
  const labels = {
    error: trans.__('Error'),
    warn: trans.__('Warning'),
    note: trans.__('Note')
  };
  return (
    <div className={`llf-Message is-${level}`}>
      <b>{labels[level]}</b>
      <div>
        <CodeText
          text={[event.says ?? event.message, event.fix]
            .filter(Boolean)
            .join(' ')}
        />
      </div>
    </div>
  );
}
