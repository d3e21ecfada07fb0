import { expect, it } from 'vitest';

import { h } from '../shared/dom.js';

it('makes text of what a run says, never HTML', () => {
  const evil = '<img src=x onerror="alert(1)">';
  const node = h('p', { title: evil, hidden: false, lang: null }, evil, null);
  expect(node.children.length).toBe(0);
  expect(node.textContent).toBe(evil);
  expect(node.getAttributeNames()).toEqual(['title']);
});
