import { formatTime } from '../../src/dates';
import { createButton } from '../shared/buttons.js';
import { drawIfChanged, h } from '../shared/dom.js';

/** @import { Model } from '../shared/model' */

/**
 * @typedef {{ state: 'offered', count: number, time: number, labels: string[] }
 *   | { state: 'restored' | 'discarded', count: number }} Kept
 */

/**
 * Draws the line about settings that were changed before the cell was run again, with its buttons.
 * @param {Model} model
 * @param {() => HTMLElement} fallback gets the focus if the line disappears
 */
export function keptSettings(model, fallback) {
  const node = h('div', {
    class: 'llf-Studio-kept',
    role: 'group',
    'aria-label': 'Settings from earlier'
  });
  const text = h('span', { role: 'status' });
  const buttons = h('span', { class: 'llf-row' });
  node.append(text, buttons);
  const button = (
    /** @type {string} */ label,
    /** @type {string} */ type,
    /** @type {string | undefined} */ style = undefined
  ) => createButton(label, () => model.send({ type }), style);
  /** @returns {HTMLElement[]} */
  const controls = (/** @type {Kept | null} */ kept) => {
    if (!kept) {
      return [];
    }
    return kept.state === 'offered'
      ? [
          button('Restore settings', 'restore'),
          button('Discard', 'discard', 'llf-link')
        ]
      : [button('Undo', 'undo', 'llf-link')];
  };
  const draw = () => {
    const value = model.get('_kept');
    /** @type {Kept | null} */
    const kept = value.state ? value : null;
    drawIfChanged(text, kept, () => (kept ? [sentence(kept)] : []));
    drawIfChanged(
      buttons,
      kept?.state,
      () => controls(kept),
      () => buttons.querySelector('button') ?? fallback()
    );
    node.hidden = !kept;
  };
  return { node, draw };
}

/** Says what is offered, or what became of it. @param {Kept} kept */
function sentence(kept) {
  if (kept.state !== 'offered') {
    return `${kept.count} ${kept.count === 1 ? 'setting' : 'settings'} ${kept.state}.`;
  }
  const more = kept.count - kept.labels.length;
  const labels = more
    ? `${kept.labels.join(', ')} and ${more} more`
    : kept.labels.join(', ');
  const [changes, are] =
    kept.count === 1 ? ['change', 'is'] : ['changes', 'are'];
  return `Your ${changes} from ${formatTime(kept.time)} ${are} kept: ${labels}.`;
}
