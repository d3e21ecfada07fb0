import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IEvaluation, IExport } from './api';
import { formatDate } from './dates';
import { formatBytes } from './numbers';

/** The evaluations of a run, newest first, each with its main metrics. */
export function Evaluations(props: {
  evaluations: readonly IEvaluation[];
  trans: TranslationBundle;
}): React.JSX.Element {
  const { trans } = props;
  return (
    <ul className="llf-Results">
      {props.evaluations.map((one, index) => (
        <li key={`${one.made} ${index}`}>
          {one.problem ? (
            one.problem
          ) : (
            <>
              {trans.__('%1 on %2', one.target, one.data)}
              <span className="llf-secondary">
                {trans._n('%1 example', '%1 examples', one.examples)},{' '}
                {formatDate(one.made)}
              </span>
              <span>
                {one.metrics
                  .map(({ label, text }) => `${label} ${text}`)
                  .join(', ')}
              </span>
              {(one.judged ?? []).map(({ judge, base, text, verdict }) => (
                <span key={`${judge} ${base}`}>
                  {trans.__(
                    'Win rate against %1 by %2: %3, %4',
                    base || trans.__('another model'),
                    judge,
                    text,
                    verdict
                  )}
                </span>
              ))}
            </>
          )}
        </li>
      ))}
    </ul>
  );
}

/** The exports of a run, newest first, with a download of those in its folder. */
export function Exports(props: {
  exports: readonly IExport[];
  exportUrl: (key: string) => string;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { trans } = props;
  return (
    <ul className="llf-Results">
      {props.exports.map(one => (
        <li key={`${one.made} ${one.folder}`}>
          <span>
            {one.step === null
              ? one.format
              : trans.__('%1 of step %2', one.format, one.step)}
            , {formatBytes(one.bytes)},{' '}
            {one.passed
              ? trans.__('all checks passed')
              : trans.__('checks failed')}
          </span>
          <span className="llf-secondary">
            {one.there
              ? one.folder
              : trans.__('%1 (moved or deleted)', one.folder)}
            , {formatDate(one.made)}
          </span>
          {one.key && one.there && (
            <a
              href={props.exportUrl(one.key)}
              download
              aria-label={trans.__('Download %1', one.folder)}
            >
              {trans.__('Download')}
            </a>
          )}
        </li>
      ))}
    </ul>
  );
}
