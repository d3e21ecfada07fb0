import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

interface IBreadcrumbsProps {
  button: React.RefObject<HTMLButtonElement>;
  trans: TranslationBundle;
  onBack: () => void;
}

/** A link back to the list, followed by the title of the view that replaces it. */
export function Breadcrumbs({
  button,
  trans,
  onBack,
  children
}: React.PropsWithChildren<IBreadcrumbsProps>): React.JSX.Element {
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
