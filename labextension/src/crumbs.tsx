import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

interface IProps {
  button: React.RefObject<HTMLButtonElement>;
  trans: TranslationBundle;
  onBack: () => void;
}

/** The way back to the list, before the name of what is shown in its place. */
export function Crumbs({
  button,
  trans,
  onBack,
  children
}: React.PropsWithChildren<IProps>): React.JSX.Element {
  return (
    <div className="llf-row">
      <button ref={button} className="llf-link" onClick={onBack}>
        {trans.__('Runs')}
      </button>
      <span aria-hidden="true">/</span>
      {children}
    </div>
  );
}
