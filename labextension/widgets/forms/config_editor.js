import { createButton, markLocal } from '../shared/buttons.js';
import { copyButton } from '../shared/clipboard.js';
import { h, setText } from '../shared/dom.js';
import { drawMessages, drawUnreadableFile } from './messages.js';

/** @import { Context } from '../shared/model' */

const TYPING_DELAY_MS = 700;

/**
 * Draws the configuration as YAML and as Python. The form takes over what is pasted or typed as YAML.
 * @param {Context} context
 */
export function configEditor({ model, el }) {
  let timer = 0;
  let dirty = false;
  const area = h('textarea', {
    rows: '18',
    spellcheck: 'false',
    'aria-label': 'Configuration as YAML. Paste here to fill in the form.'
  });
  const python = h('pre', {
    class: 'llf-Code-python',
    tabindex: '0',
    'aria-label': 'Configuration as Python'
  });
  const view = (/** @type {'yaml' | 'python'} */ name) => () => {
    model.set('_view', name);
    model.save_changes();
  };
  const yamlButton = createButton('YAML', view('yaml'), 'llf-link');
  const pythonButton = createButton('Python', view('python'), 'llf-link');
  const shown = () =>
    model.get('_view') === 'yaml' ? area.value : model.get('_python');
  const copy = copyButton(shown, { className: 'llf-link llf-push' });
  const file = h('input', {
    type: 'file',
    accept: '.yaml,.yml,.json',
    hidden: ''
  });
  const open = createButton('Open…', () => file.click(), 'llf-link');
  const save = createButton(
    'Save…',
    () => {
      const isYaml = model.get('_view') === 'yaml';
      const url = URL.createObjectURL(
        new Blob([shown()], { type: 'text/plain' })
      );
      const link = h('a', {
        href: url,
        download: `${model.get('_file')}.${isYaml ? 'yaml' : 'py'}`
      });
      link.click();
      URL.revokeObjectURL(url);
    },
    'llf-link'
  );
  [yamlButton, pythonButton, save].forEach(markLocal);
  const defaults = h('input', { type: 'checkbox' });
  const messages = h('div', { class: 'llf-Code-messages' });
  const note = h(
    'span',
    {},
    'Paste YAML here to fill in the form. LLaMA-Factory YAML works too.'
  );
  const foot = h(
    'div',
    { class: 'llf-row llf-secondary llf-small llf-Code-foot' },
    note,
    h('label', { class: 'llf-push llf-nowrap' }, defaults, 'Include defaults')
  );
  const head = h(
    'div',
    { class: 'llf-Views' },
    h('h3', {}, 'Configuration'),
    yamlButton,
    pythonButton,
    copy,
    open,
    save,
    file
  );
  el.replaceChildren(
    h(
      'section',
      { class: 'llf-Code', 'aria-label': 'Configuration as text' },
      head,
      area,
      python,
      messages,
      foot
    )
  );

  const send = () => {
    clearTimeout(timer);
    if (!dirty) {
      return;
    }
    dirty = false;
    model.send({ type: 'paste', text: area.value });
  };
  area.addEventListener('input', () => {
    dirty = true;
    clearTimeout(timer);
    timer = setTimeout(send, TYPING_DELAY_MS);
  });
  area.addEventListener('change', send);
  area.addEventListener('blur', () => {
    send();
    draw();
  });
  defaults.addEventListener('change', () => {
    model.set('_defaults', defaults.checked);
    model.save_changes();
  });
  file.addEventListener('change', async () => {
    if (!file.files?.length) {
      return;
    }
    const [chosen] = file.files;
    try {
      model.send({ type: 'paste', text: await chosen.text() });
    } catch (error) {
      drawUnreadableFile(messages, chosen.name, error);
    } finally {
      file.value = '';
    }
  });

  const draw = () => {
    const isYaml = model.get('_view') === 'yaml';
    yamlButton.setAttribute('aria-pressed', String(isYaml));
    pythonButton.setAttribute('aria-pressed', String(!isYaml));
    yamlButton.classList.toggle('is-current', isYaml);
    pythonButton.classList.toggle('is-current', !isYaml);
    area.hidden = !isYaml;
    python.hidden = isYaml;
    note.hidden = !isYaml;
    setText(python, model.get('_python'));
    defaults.checked = model.get('_defaults');
    // do not overwrite text that is being edited, nor an invalid text, so that it can be corrected
    if (!dirty && document.activeElement !== area) {
      area.value = model.get('_invalid_text') || model.get('_yaml');
    }
    drawMessages(messages, model.get('_messages'), (message, fix) => {
      dirty = false;
      area.blur();
      model.send({ type: 'fix', message, fix });
    });
  };
  model.on('change', draw);
  draw();
  return () => {
    clearTimeout(timer);
    model.off('change', draw);
  };
}
