import type { TranslationBundle } from '@jupyterlab/translation';

import type { IForeignCode } from './api';
import { textWithCode } from './text_with_code';

const MAX_OPEN_FILES = 2;

/**
 * Draws Python code that came with a run or a model, for a reader who decides whether it may run: what it belongs to, its
 * files, and what refers to it. All of it is text, and never parsed as HTML.
 */
export function foreignCodeElements(
  code: IForeignCode,
  trans: Pick<TranslationBundle, '__' | '_n'>
): HTMLElement[] {
  const owner = code.owner.charAt(0).toUpperCase() + code.owner.slice(1);
  const place = element(
    'p',
    ...textWithCode(
      trans.__(
        '%1, in `%2` (SHA-256 `%3`)',
        owner,
        code.folder,
        code.sha256.slice(0, 12)
      )
    )
  );
  place.title = code.sha256;
  const files = code.files.map(file => {
    const lines = element('pre', file.lines.join('\n'));
    lines.tabIndex = 0;
    lines.setAttribute('aria-label', trans.__('First lines of %1', file.name));
    const name = element('code', file.name);
    const details = element('details', element('summary', name), lines);
    details.open = code.files.length <= MAX_OPEN_FILES;
    return details;
  });
  const elements = [place, ...files];
  if (code.more > 0) {
    elements.push(
      element('p', trans._n('and %1 more file', 'and %1 more files', code.more))
    );
  }
  if (code.references.length > 0) {
    elements.push(
      element('p', trans.__('Referenced by: %1', code.references.join('; ')))
    );
  }
  return elements;
}

function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}
