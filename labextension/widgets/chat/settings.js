// System prompt and sampling parameters.

import { drawIfChanged, h, setText } from '../shared/dom.js';
import { messageBox } from '../shared/message.js';

/** @import { ChatErrors, ChatSettings, Send } from './types' */

/** @type {[keyof ChatSettings, string, string][]} */
const NUMBERS = [
  [
    'temperature',
    'Temperature',
    '0 always takes the most likely token. Higher values vary more.'
  ],
  [
    'top_p',
    'Top p',
    'Samples from the most likely tokens whose probabilities add up to this.'
  ],
  ['max_tokens', 'At most', 'Maximum number of tokens of a reply.'],
  [
    'seed',
    'Seed',
    'The same seed gives the same reply. Empty: another one each time.'
  ]
];
/** @type {Record<string, Partial<ChatSettings>>} */
const PRESETS = {
  Greedy: { temperature: '0', top_p: '1' },
  Balanced: { temperature: '0.7', top_p: '0.9' },
  Varied: { temperature: '1', top_p: '0.95' }
};

/**
 * Creates the row of settings.
 * @param {Send} send
 * @param {string} idPrefix
 * @param {HTMLElement[]} actions what concerns the whole conversation
 */
export function settingsRow(send, idPrefix, actions) {
  /** @type {Record<string, HTMLInputElement | HTMLTextAreaElement>} */
  const fields = {};
  const errors = h('div', { role: 'status' });
  const change = (/** @type {object} */ changes) =>
    send({ type: 'settings', changes });
  fields.system = h('textarea', {
    id: `${idPrefix}-system`,
    rows: '1',
    placeholder: 'No system prompt',
    onchange: () => change({ system: fields.system.value })
  });
  const numbers = NUMBERS.flatMap(([name, label, help]) => {
    fields[name] = h('input', {
      type: 'text',
      id: `${idPrefix}-${name}`,
      class: 'llf-num',
      inputmode: 'decimal',
      title: help,
      'aria-describedby': `${idPrefix}-errors`,
      onchange: () => change({ [name]: fields[name].value })
    });
    return [
      h(
        'span',
        { class: 'llf-nowrap' },
        h('label', { for: `${idPrefix}-${name}` }, label),
        ' ',
        fields[name],
        name === 'max_tokens'
          ? h('span', { class: 'llf-secondary llf-small' }, ' tokens')
          : null
      )
    ];
  });
  const presets = h(
    'select',
    {
      'aria-label': 'Preset of the sampling parameters',
      onchange: applyPreset
    },
    h('option', { value: '' }, 'Own values'),
    ...Object.keys(PRESETS).map(name => h('option', { value: name }, name))
  );
  const probabilities = h('input', {
    type: 'checkbox',
    onchange: applyProbabilities
  });
  /** @type {boolean | null} */
  let asked = null; // what the kernel has not answered yet

  function applyProbabilities() {
    asked = probabilities.checked;
    change({ probabilities: asked });
  }

  const thinking = h(
    'select',
    {
      'aria-label': 'Thinking before the reply',
      title: 'Whether a model that can think does so before it replies.',
      onchange: applyThinking
    },
    h('option', { value: '' }, 'Thinking: as the model does'),
    h('option', { value: 'on' }, 'Thinking on'),
    h('option', { value: 'off' }, 'Thinking off')
  );

  function applyThinking() {
    change({ thinking: thinking.value });
  }

  function applyPreset() {
    if (presets.value) {
      change(PRESETS[presets.value]);
    }
  }
  const box = h(
    'div',
    { class: 'llf-Chat-settings' },
    h('label', { for: `${idPrefix}-system` }, 'System'),
    fields.system,
    presets,
    ...numbers,
    h(
      'label',
      {
        class: 'llf-nowrap',
        title:
          'Shows the tokens of new replies with their probabilities and alternatives.'
      },
      probabilities,
      'Probabilities'
    ),
    thinking,
    h('span', { class: 'llf-Chat-actions llf-push' }, ...actions)
  );
  errors.id = `${idPrefix}-errors`;
  const missing = h('p', { class: 'llf-secondary llf-small', role: 'status' });

  return {
    nodes: [box, errors, missing],
    /** Says why replies are shown without probabilities. @param {number} count */
    showMissing(count) {
      setText(
        missing,
        count
          ? `${count} ${count > 1 ? 'replies have' : 'reply has'} no probabilities: they are kept only for replies written since the box was checked and the kernel started. Again writes a reply with them.`
          : ''
      );
    },
    /**
     * Shows the settings; a field in which somebody types is left alone.
     * @param {ChatSettings} settings
     * @param {ChatErrors} problems a sentence for each invalid field
     * @param {boolean} canThink whether one of the models can think
     */
    show(settings, problems, canThink) {
      thinking.hidden = !canThink;
      thinking.value = settings.thinking;
      for (const [name, field] of Object.entries(fields)) {
        const value = String(
          settings[/** @type {keyof ChatSettings} */ (name)] ?? ''
        );
        if (
          document.activeElement !== field &&
          !problems[name] &&
          field.value !== value
        ) {
          field.value = value;
        }
        field.setAttribute('aria-invalid', String(name in problems));
      }
      asked = asked === settings.probabilities ? null : asked;
      probabilities.checked = asked ?? settings.probabilities;
      presets.value =
        Object.entries(PRESETS).find(([, preset]) =>
          Object.entries(preset).every(
            ([name, value]) =>
              Number(settings[/** @type {keyof ChatSettings} */ (name)]) ===
              Number(value)
          )
        )?.[0] ?? '';
      drawIfChanged(errors, problems, () =>
        Object.values(problems).map(
          problem => messageBox('error', [problem], { role: null }) // `errors` announces it
        )
      );
    }
  };
}
