import { expect, it } from 'vitest';

import { tokenLosses } from '../evaluation/token_losses.js';

it('tells the loss of a token without a pointer', () => {
  Element.prototype.scrollIntoView = () => undefined;
  const section = tokenLosses(
    { source: 'demo', index: 0, models: [{ tokens: ['no', ' '], losses: [0, Math.log(4)] }, null] },
    [{ name: 'tuned', label: '' }, { name: 'base', label: '' }]
  ); // prettier-ignore
  const tokens = section.querySelector('[tabindex="0"]')!;
  const press = (key: string) =>
    tokens.dispatchEvent(new KeyboardEvent('keydown', { key }));
  const said = () => section.querySelector('[role=status]')!.textContent;
  press('ArrowRight');
  expect(said()).toBe('"no": 0.000 nats, probability 100 %');
  press('ArrowRight');
  press('ArrowRight');
  expect(said()).toBe('" ": 1.386 nats, probability 25 %');
  expect(section.querySelectorAll('.is-chosen')).toHaveLength(1);
  expect(tokens.getAttribute('aria-label')).toContain('Tokens of tuned.');
});
