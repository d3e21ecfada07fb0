import { Dialog, showDialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

/** Lines of text in a dialog, which `InputDialog` has no form for. */
class TextBody extends Widget implements Dialog.IBodyWidget<string> {
  constructor(label: string, text: string) {
    super();
    this._area = document.createElement('textarea');
    this._area.setAttribute('aria-label', label);
    this._area.className = 'llf-Ask jp-mod-styled';
    this._area.rows = 8;
    this._area.value = text;
    this.node.append(this._area);
  }

  getValue(): string {
    return this._area.value;
  }

  private _area: HTMLTextAreaElement;
}

/** Asks for text of any number of lines; null where it is dismissed. */
export async function askText(
  title: string,
  text: string
): Promise<string | null> {
  const body = new TextBody(title, text);
  const { button, value } = await showDialog({
    title,
    body,
    focusNodeSelector: 'textarea'
  });
  return button.accept ? value : null;
}
