import { Dialog, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import type { IForeignCode, IRun } from './api';
import { foreignCodeElements } from './foreign_code';
import { displayName } from './format';
import type { RunsModel } from './model';

/**
 * Shows the source of the code that came with a run, and asks whether it may be executed. A run that was made on this
 * machine and not modified needs no confirmation.
 *
 * @returns the argument of the call that starts the run; null if the user does not allow the code. The argument is empty
 * if no confirmation is needed, and if the server does not answer: the call itself then refuses foreign code.
 */
export async function confirmForeignCode(
  model: RunsModel,
  run: IRun,
  trans: TranslationBundle
): Promise<string | null> {
  const toAllow = await model.api.codeToAllow(run.id).catch(() => null);
  if (!toAllow?.code.length) {
    return '';
  }
  const { button } = await showDialog({
    title: trans.__('Run the code of “%1”?', displayName(run)),
    body: new ForeignCodeBody(toAllow.code, trans),
    defaultButton: 0, // Enter cancels: nothing is executed by accident
    buttons: [
      Dialog.cancelButton(),
      Dialog.warnButton({ label: trans.__('Allow this code') })
    ]
  });
  return button.accept ? `trust="${toAllow.sha256}"` : null;
}

/** Dialog body with the source of foreign code, as text and never as HTML. */
export class ForeignCodeBody extends Widget {
  constructor(code: readonly IForeignCode[], trans: TranslationBundle) {
    super();
    this.addClass('llf-Dialog');
    this.addClass('llf-Code');
    const notice = document.createElement('p');
    notice.textContent = trans.__(
      'This run was created on another machine or modified since. Its Python code would run with your permissions. It has not been executed. Review it first.'
    );
    this.node.append(
      notice,
      ...code.flatMap(one => foreignCodeElements(one, trans))
    );
  }
}
