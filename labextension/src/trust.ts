import { Dialog, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import type { IForeignCode, IRun } from './api';
import { called } from './format';
import type { RunsModel } from './model';

/**
 * Asks before code of a run is run that was made elsewhere, and shows its source.
 *
 * @returns the argument of the call that starts the run: empty where nothing is to be asked, and where the server cannot
 * tell (the call then refuses by itself); null where the reader does not allow it
 */
export async function askTrust(
  model: RunsModel,
  run: IRun,
  trans: TranslationBundle
): Promise<string | null> {
  const found = await model.api.code(run.id).catch(() => null);
  if (!found?.code.length) {
    return '';
  }
  const { button } = await showDialog({
    title: trans.__('Run the code of “%1”?', called(run)),
    body: new CodeBody(found.code, trans),
    defaultButton: 0, // Enter, pressed in haste, runs nothing
    buttons: [
      Dialog.cancelButton(),
      Dialog.warnButton({ label: trans.__('Allow this code') })
    ]
  });
  return button.accept ? `trust="${found.sha256}"` : null;
}

/** The source of code, as text. */
export class CodeBody extends Widget {
  constructor(code: readonly IForeignCode[], trans: TranslationBundle) {
    super();
    this.addClass('llf-Dialog');
    this.addClass('llf-Code');
    this._say(
      'p',
      trans.__(
        'This run was created on another machine or modified since. Its Python code would run with your permissions. It has not been executed. Review it first.'
      )
    );
    for (const one of code) {
      this._say(
        'p',
        trans.__(
          '%1, in %2 (SHA-256 %3)',
          one.owner,
          one.folder,
          one.sha256.slice(0, 12)
        )
      );
      for (const file of one.files) {
        this._say('h4', file.name);
        const source = this._say('pre', file.lines.join('\n'));
        source.tabIndex = 0;
        source.setAttribute(
          'aria-label',
          trans.__('First lines of %1', file.name)
        );
      }
      if (one.more > 0) {
        this._say('p', trans.__('and %1 more files', one.more));
      }
    }
  }

  private _say(tag: string, text: string): HTMLElement {
    const element = document.createElement(tag);
    element.textContent = text;
    this.node.append(element);
    return element;
  }
}
