import { createButton } from '../shared/buttons.js';
import { drawIfChanged, h } from '../shared/dom.js';
import { resultControls } from './result_controls.js';

/** @import { Context } from '../shared/model' */

/**
 * Draws the data preview: counts, and examples with the tokens in the loss marked.
 * @param {Context} context
 */
export function dataPreview({ model, el }) {
  const inspect = createButton('Inspect tokens', () =>
    model.send({ type: 'inspect' })
  );
  const controls = resultControls(model, 'Preview data', 'preview', [inspect]);
  const body = h('div', { class: 'llf-Preview-body' });
  el.replaceChildren(
    h('div', { class: 'llf-Preview' }, ...controls.nodes, body)
  );

  const draw = () => {
    controls.draw();
    const examples = model.get('_examples');
    drawIfChanged(body, examples, () => examples.map(example));
    body.hidden = model.get('_state') !== 'done';
  };
  model.on('change', draw);
  draw();
  return () => model.off('change', draw);
}

/** Draws one example; the flag of a part says whether it is in the loss. @param {{ title: string, parts: [string, boolean][] }} example */
function example({ title, parts }) {
  const text = h('p', { class: 'llf-Tokens' });
  for (const [part, trained] of parts) {
    text.append(
      h(
        trained ? 'mark' : 'span',
        { class: trained ? 'is-trained' : undefined },
        part
      )
    );
  }
  return h(
    'article',
    { class: 'llf-Preview-example', 'aria-label': title },
    h('h4', {}, title),
    text
  );
}
