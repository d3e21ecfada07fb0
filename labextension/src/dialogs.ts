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

/** A line of a dialog: something to be typed, or to be chosen where there are options. */
export interface IField {
  name: string;
  label: string;
  value?: string;
  placeholder?: string;
  options?: readonly string[];
}

/** Lines with labels; its value is what they hold, by name. */
class FieldsBody
  extends Widget
  implements Dialog.IBodyWidget<Record<string, string>>
{
  constructor(about: string, fields: readonly IField[]) {
    super();
    this.addClass('llf-Ask-fields');
    const words = document.createElement('p');
    words.textContent = about;
    this.node.append(words);
    for (const field of fields) {
      const label = document.createElement('label');
      const word = document.createElement('span');
      word.textContent = field.label;
      const control = document.createElement(
        field.options ? 'select' : 'input'
      );
      control.className = 'jp-mod-styled';
      control.name = field.name;
      for (const option of field.options ?? []) {
        control.append(new Option(option));
      }
      if (control instanceof HTMLInputElement) {
        control.placeholder = field.placeholder ?? '';
      }
      control.value = field.value ?? '';
      label.append(word, control);
      this.node.append(label);
    }
  }

  getValue(): Record<string, string> {
    const controls = this.node.querySelectorAll<
      HTMLInputElement | HTMLSelectElement
    >('input, select');
    return Object.fromEntries(
      Array.from(controls, control => [control.name, control.value.trim()])
    );
  }
}

/** Asks for several values at once; null where it is dismissed. */
export async function askFields(
  title: string,
  about: string,
  accept: string,
  fields: readonly IField[]
): Promise<Record<string, string> | null> {
  const { button, value } = await showDialog({
    title,
    body: new FieldsBody(about, fields),
    focusNodeSelector: 'select, input',
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: accept })]
  });
  return button.accept ? value : null;
}
