import { h } from '../shared/dom.js';
import { tokenCursor } from '../shared/token_cursor.js';
import { formatCount, withUnit } from '../../src/numbers';
import { linkButton, withoutSuffix } from './elements.js';

/** @import { Actions, Example, ExampleSide, ShownTurn, TokenState } from './types' */

const CUT = 'cut'; // state of a token that is truncated, and has no place in a row
/** @type {Record<TokenState, string>} */
const TOKEN_CLASSES = {
  prompt: '',
  trained: 'is-trained',
  [CUT]: 'is-truncated'
};
/** @type {Record<TokenState, string>} */
const TOKEN_ROLES = {
  prompt: 'not in the loss',
  trained: 'in the loss',
  [CUT]: 'truncated'
};
const HINT =
  'Hover over a token or use the arrow keys to see its id, position and role.';
const LONG_TURN = 160; // tokens shown at the beginning and at the end of a long turn

/** Draws one example token by token. The arrow keys move between the tokens. */
export function tokensSection(
  /** @type {Example | null} */ example,
  /** @type {Actions} */ actions
) {
  const legend = h(
    'div',
    { class: 'llf-Legend' },
    ...[
      ['', 'Abc', 'not in the loss'],
      ['is-trained', 'Abc', 'in the loss'],
      ['is-truncated', 'Abc', 'truncated']
    ].map(([kind, sample, word]) =>
      h(
        'span',
        {},
        h(
          'span',
          { class: 'llf-Tokens' },
          h('span', { class: kind || null }, sample)
        ),
        ` ${word}`
      )
    )
  );
  const section = h(
    'section',
    { 'aria-label': 'Tokens' },
    h('h3', {}, 'Tokens in the loss'),
    legend
  );
  if (!example) {
    return section;
  }
  const tokenInfo = h(
    'p',
    { class: 'llf-secondary llf-small llf-Tip-line', role: 'status' },
    HINT
  );
  /** @type {HTMLElement[]} */
  const spans = [];
  /** @type {{text: string, id: number, state: TokenState, role: string, position: number, total: number, kept: number}[]} */
  const facts = [];
  const total = example.tokens;
  const showToken = (/** @type {number} */ place) => {
    const {
      text,
      id,
      state,
      role,
      position,
      total: length,
      kept
    } = facts[place];
    const row =
      example.row === undefined || state === CUT
        ? ''
        : `, row ${example.row} at ${example.offset + kept}`;
    tokenInfo.textContent = `${JSON.stringify(text)}, id ${id} · position ${position + 1} of ${length}${row} · ${role ? `${role}, ` : ''}${TOKEN_ROLES[state]}`;
  };
  let side = { total, position: 0, kept: 0, name: '' };
  const drawTurn = (/** @type {ShownTurn} */ turn) => {
    const line = h('div', { class: 'llf-Tokens' });
    const isLong = turn.tokens.length > 2 * LONG_TURN + 20;
    const hidden = h('span', { hidden: true, class: 'llf-Tokens-rest' });
    turn.tokens.forEach(([text, id, state, special, times = 1], place) => {
      const span = h(
        'span',
        {
          class:
            [TOKEN_CLASSES[state], special ? 'is-special' : '']
              .join(' ')
              .trim() || null
        },
        text.replaceAll('\r', '␍').replaceAll('\t', '⇥').replaceAll('\n', '↵'),
        times > 1 ? ` × ${formatCount(times)}` : ''
      );
      const role = [side.name, turn.role].filter(Boolean).join(', ');
      facts.push({
        text,
        id,
        state,
        role,
        position: side.position,
        total: side.total,
        kept: side.kept
      });
      side.position += times;
      side.kept += state === CUT ? 0 : times;
      spans.push(span);
      const inside =
        isLong && place >= LONG_TURN && place < turn.tokens.length - LONG_TURN;
      const parent = inside ? hidden : line;
      parent.append(span);
      if (text.includes('\n')) {
        parent.append(document.createElement('br'));
      }
      if (isLong && place === LONG_TURN) {
        const more = linkButton(
          `… ${formatCount(turn.tokens.length - 2 * LONG_TURN)} tokens …`,
          () => {
            hidden.hidden = false;
            more.remove();
          },
          { 'data-llf-local': '' }
        );
        line.append(more, hidden);
      }
    });
    return h('div', { class: 'llf-Turn' }, h('span', {}, turn.role), line);
  };
  /** Draws a preference pair: the prompt once, and both answers side by side. */
  const drawPair = (/** @type {ExampleSide} */ rejected) => {
    const shared = example.turns.slice(0, -1).map(drawTurn);
    const [position, kept] = [side.position, side.kept];
    const column = (
      /** @type {string} */ name,
      /** @type {ExampleSide} */ one
    ) => {
      side = { total: one.tokens, position, kept, name };
      return h(
        'div',
        { role: 'group', 'aria-label': `The ${name} response` },
        h(
          'h4',
          {},
          name,
          ' ',
          h(
            'span',
            { class: 'llf-secondary llf-small' },
            `${withUnit(one.trained, 'token')} in the loss`,
            one.cut ? `, ${formatCount(one.cut)} truncated` : ''
          )
        ),
        ...one.turns.slice(-1).map(drawTurn)
      );
    };
    return [
      ...shared,
      h(
        'div',
        { class: 'llf-Pair' },
        column('chosen', example),
        column('rejected', rejected)
      )
    ];
  };
  const turns = example.rejected
    ? drawPair(example.rejected)
    : example.turns.map(drawTurn);

  const cursor = tokenCursor({
    label: 'Tokens: use the arrow keys to move',
    className: 'llf-Example-body',
    chosenClass: 'is-hover',
    tokens: spans,
    children: turns,
    onChoose: showToken
  });
  cursor.box.addEventListener('mouseleave', () => {
    tokenInfo.textContent = HINT;
    cursor.clear();
  });
  const other = example.rejected;
  const counts = other
    ? `${withUnit(total, 'token')} with the chosen response, ${formatCount(other.tokens)} with the rejected one`
    : `${withUnit(total, 'token')}: ${formatCount(example.prompt)} in the prompt, ${formatCount(example.trained)} in the loss`;
  const kind = example.held_out
    ? 'held out'
    : example.row === undefined
      ? 'whole'
      : `row ${example.row}`;
  const cut = example.cut
    ? h(
        'span',
        { class: 'llf-warning-text' },
        `, ${formatCount(example.cut)} truncated`
      )
    : null;
  section.append(
    h(
      'div',
      { class: 'llf-Example' },
      h(
        'header',
        {},
        h('b', {}, `${withoutSuffix(example.dataset)} ${example.where}`),
        h('span', {}, counts, cut),
        h('span', { class: 'llf-secondary llf-push' }, kind),
        example.number > 0
          ? linkButton('Previous', () => actions.example(example.number - 1))
          : null,
        example.number < actions.last
          ? linkButton('Next', () => actions.example(example.number + 1))
          : null
      ),
      tokenInfo,
      cursor.box
    )
  );
  return section;
}
