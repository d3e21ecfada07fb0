import { beforeEach, expect, it } from 'vitest';

import { drawMarkdown, tokenize } from '../chat/markdown.js';
import { h } from '../shared/dom.js';

declare const process: {
  cpuUsage: (before?: object) => { user: number; system: number };
};

let box: HTMLElement;
beforeEach(() => {
  box = h('div');
  document.body.replaceChildren(box);
});

const HOSTILE = [
  '<img src=x onerror="window.hacked = 1">',
  'text <b onclick="hacked()">bold</b> text',
  '<script>window.hacked = 1</script>',
  '<iframe src="https://evil.example"></iframe>',
  '<style>* { display: none }</style>',
  '<svg><script>hacked()</script></svg>',
  '[a](javascript:hacked())',
  '[a](JaVaScRiPt:hacked() "title")',
  '[a](data:text/html,<script>hacked()</script>)',
  '[a](vbscript:hacked)',
  '[a]: javascript:hacked()\n\n[a]',
  '<javascript:hacked()>',
  '![pixel](https://evil.example/pixel.png)',
  '![x](x" onerror="hacked())',
  '[a](https://x.example/" onmouseover="hacked())',
  '```html" onclick="hacked()\n<b>\n```',
  '| <img src=x onerror=hacked()> | b |\n|---|---|\n| <form action=x> | 2 |',
  '$<img src=x onerror=hacked()>$ and $$<b>$$',
  '- [x] <input onfocus=hacked() autofocus>',
  '<a href="https://evil.example" style="position:fixed">x</a>',
  '&lt;img src=x onerror=hacked()&gt;'
];

it.each(HOSTILE)('shows the HTML of a model as text: %s', source => {
  drawMarkdown(box, source);
  const nodes = [...box.querySelectorAll('*')];
  const known = /^(A|BR|CODE|DIV|LI|P|PRE|SPAN|TABLE|TBODY|TD|TH|THEAD|TR|UL)$/;
  for (const node of nodes) {
    expect(node.tagName).toMatch(known);
    for (const name of node.getAttributeNames()) {
      expect(['class', 'href', 'rel', 'tabindex', 'target']).toContain(name);
    }
  }
  for (const link of box.querySelectorAll('a')) {
    expect(link.protocol).toMatch(/^https?:$/);
    expect(link.rel).toBe('noopener noreferrer');
  }
  for (const word of source.match(/hacked|<b>/g) ?? []) {
    if (!source.startsWith('[a]: ') && !source.startsWith('```')) {
      expect(box.textContent).toContain(word);
    }
  }
  expect('hacked' in window).toBe(false);
});

it('draws code, tables, lists and links that show where they lead', () => {
  drawMarkdown(
    box,
    '# Title\n\n1. `one`\n\n```python\na < b\n```\n\n| a |\n|---|\n| **1** |\n\n[docs](https://docs.example/x) https://plain.example'
  );
  expect(box.querySelector('h1')).toBeNull(); // a heading of a reply is none of the page
  expect(box.querySelector('.llf-Heading strong')?.textContent).toBe('Title');
  expect(box.querySelector('ol code')?.textContent).toBe('one');
  expect(box.querySelector('pre code')?.textContent).toBe('a < b');
  expect(box.querySelector('td strong')?.textContent).toBe('1');
  expect(box.textContent).toContain('docs (docs.example)');
  const [docs, plain] = box.querySelectorAll('a');
  expect(docs.rel).toBe('noopener noreferrer');
  expect(docs.target).toBe('_blank');
  expect(box.querySelector('pre')?.tabIndex).toBe(0);
  expect(plain.textContent).toBe('https://plain.example');
});

it('keeps math as it was written', () => {
  drawMarkdown(box, 'Since $a_1 * b_2 * c$ and \\(x_1\\):\n\n$$\ne^{i_1}\n$$');
  const math = [...box.querySelectorAll('.llf-Math')].map(
    node => node.textContent
  );
  expect(math).toEqual(['$a_1 * b_2 * c$', '\\(x_1\\)', '$$\ne^{i_1}\n$$']);
  drawMarkdown(box, 'It costs $5 or $6.');
  expect(box.querySelector('.llf-Math')).toBeNull();
});

it('keeps what was written while the rest arrives', () => {
  drawMarkdown(box, 'First.\n\nSec');
  const [first, second] = box.children;
  drawMarkdown(box, 'First.\n\nSecond.\n\n```\ncode');
  expect(box.children[0]).toBe(first);
  expect(box.children[1]).not.toBe(second);
  expect(box.children[2].querySelector('pre')?.textContent).toBe('code');
});

it('formats long lines, lists and math in them', () => {
  const bold = '**bold** and plain words\n'.repeat(100);
  drawMarkdown(box, `${bold}\n\\[\na = b\n- c\n\\]\n\n- ${bold}`);
  expect(box.querySelectorAll('strong').length).toBe(200);
  expect(box.querySelector('p.llf-Math')?.textContent).toBe(
    '\\[\na = b\n- c\n\\]'
  );
  drawMarkdown(box, 'Thus\n$$\na\n- b\n$$\nholds.');
  expect([...box.children].map(one => one.textContent?.trim())).toEqual([
    'Thus', '$$\na\n- b\n$$', 'holds.'
  ]); // prettier-ignore
});

/** Texts that make a rule of Markdown look for an end that is not there, from each of its beginnings. */
const ENDLESS: Record<string, (size: number) => string> = {
  'nested quotes': size => `${'> '.repeat(size / 2)}a`,
  'nested lists': size =>
    Array.from({ length: Math.sqrt(size) }, (_, i) => `${'  '.repeat(i)}- a`)
      .join('\n'),
  'code of all lengths': size =>
    Array.from({ length: Math.sqrt(2 * size) }, (_, i) => '`'.repeat(i))
      .join('a'),
  brackets: size => '['.repeat(size / 2) + ']'.repeat(size / 2),
  'nested emphasis': size => '*a '.repeat(size / 6) + ' b*'.repeat(size / 6)
}; // prettier-ignore
for (const unit of [
  '\\[', '\\[\n', '\\(', '$', '$$', '$$\n', '$a ', '`', '``a', '[', '![', '[a](', '[a][', '[[]', '[a](<', '[a](b "',
  '*', '*a ', '*a_', '**a', '_a ', '__a', '~a ', '~~a', '<', '<a ', '<!--', '<?', '</', 'a@', 'a.b@', 'http://a(',
  '\\', '| a ', '|\n', 'a|b\n', '- a\n', '1. a\n', '> a\n', '# a\n', 'a\n=', '[a]: b\n', '[a]: <', '```\n', 'a\n\n'
]) {
  ENDLESS[JSON.stringify(unit)] = size => unit.repeat(size / unit.length);
} // prettier-ignore

it.each(Object.entries(ENDLESS))(
  'takes twice the time for twice the text: %s',
  (_, make) => {
    /** Milliseconds of this process, which other programs do not lengthen. */
    const cost = (size: number): number => {
      const text = make(size);
      const before = process.cpuUsage();
      tokenize(text);
      const { user, system } = process.cpuUsage(before);
      return (user + system) / 1000;
    };
    let size = 4000;
    cost(size);
    while (size < 64_000 && cost(size) < 20) {
      size *= 2;
    }
    const ratio = () => cost(2 * size) / Math.max(20, cost(size));
    let least = ratio();
    for (let tries = 0; least >= 3 && tries < 4; tries++) {
      least = Math.min(least, ratio());
    }
    expect(least).toBeLessThan(3);
  }
);
