import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import {
  drawServers,
  drawTrained,
  shareOf,
  type IParameterGrid
} from '../trained';

const NO = 'no';
const SETTING = 'with a setting';
const EVIL = "<img src=x onerror='alert(1)'>";

/** Nine modules in two groups of layers, named by a stranger. */
const grid: IParameterGrid = {
  share: '25 of 1,000 parameters are trained (2.5 %).',
  stacks: [
    {
      name: 'model.layers',
      columns: Array.from({ length: 9 }, (_, index) => ({
        module: index ? `self_attn.m${index}_proj` : EVIL,
        note: 'all frozen'
      })),
      rows: [
        {
          layers: 'layers 0 to 3, 5 to 8, each',
          short: 'layers 0 to 3, …',
          cells: ['adapter, quantized', ...Array(8).fill('frozen')]
        },
        {
          layers: 'layer 4',
          short: 'layer 4',
          cells: ['not reached', null, ...Array(7).fill('trained')]
        }
      ]
    }
  ],
  outside: [{ module: 'model.norm', note: 'all frozen', state: 'frozen' }],
  legend: [['frozen', 'its weights stay as they are']]
};

let resize: (width: number) => void;

beforeEach(() => {
  vi.stubGlobal(
    'ResizeObserver',
    class {
      constructor(report: (entries: object[]) => void) {
        resize = width => report([{ contentRect: { width } }]);
      }
      observe(): void {
        /* called by hand */
      }
    }
  );
});
afterEach(() => vi.unstubAllGlobals());

const texts = (node: Element, selector: string): (string | null)[] =>
  [...node.querySelectorAll(selector)].map(one => one.textContent);

it('has the modules down where there is little room, and across where there is', () => {
  const node = drawTrained(grid);
  expect(texts(node, 'thead th')).toEqual(['layers 0 to 3, …', 'layer 4']);
  expect(node.querySelectorAll('table:first-child tbody tr')).toHaveLength(9);
  expect(texts(node, 'tbody tr:first-child td')[0]).toBe('adapter, quantized');
  resize(900);
  expect(texts(node, 'thead th')).toHaveLength(9);
  expect(texts(node, 'table:first-child tbody th')).toEqual([
    'layers 0 to 3, …',
    'layer 4'
  ]);
  expect(texts(node, 'table:first-child tbody tr:last-child td')).toEqual([
    'not reached',
    'no such module',
    ...Array(7).fill('trained')
  ]);
  resize(300);
  expect(texts(node, 'thead th')).toHaveLength(2);
});

it('keeps a number with its sign', () => {
  expect(shareOf(grid)).toBe(
    '25 of 1,000 parameters are trained (2.5\u00a0%).'
  );
});

it('says each state in words, with a class for its look', () => {
  const node = drawTrained(grid);
  const cells = [...node.querySelectorAll('td[class]')].map(
    cell => cell.className
  );
  expect(new Set(cells)).toEqual(
    new Set([
      'is-adapter',
      'is-not-reached',
      'is-frozen',
      'is-absent',
      'is-trained'
    ])
  );
  expect(node.querySelector('th[title^="layers 0 to 3, 5 to 8"]')).toBeTruthy();
});

it('never reads the names of a model as markup', () => {
  const node = drawTrained(grid);
  expect(node.querySelector('img')).toBeNull();
  expect(node.textContent).toContain(EVIL);
  const servers = drawServers({
    whole: '',
    verdicts: [
      { server: 'vLLM', verdict: 'no', label: NO, reason: EVIL, source: EVIL }
    ]
  });
  expect(servers.querySelector('img')).toBeNull();
});

it('tells the servers in one line, and the reasons below it', () => {
  const servers = drawServers({
    whole: '',
    verdicts: [
      {
        server: 'vLLM',
        verdict: 'setting',
        label: SETTING,
        reason: 'Rank 33 needs `--max-lora-rank 64`.',
        source: 'vllm/config/lora.py'
      },
      {
        server: 'Ollama',
        verdict: 'no',
        label: NO,
        reason: 'It has DoRA.',
        source: 'a page'
      }
    ]
  });
  expect(servers.querySelector('summary')?.textContent).toBe(
    'Loads in vLLM: with a setting · Ollama: no'
  );
  expect(texts(servers, 'li')).toEqual([
    'vLLM, with a setting: Rank 33 needs --max-lora-rank 64. (vllm/config/lora.py)',
    'Ollama, no: It has DoRA. (a page)'
  ]);
  expect(texts(servers, 'code')).toEqual(['--max-lora-rank 64']);
  const whole = drawServers({ whole: 'A whole model.', verdicts: [] });
  expect(whole.textContent).toBe('A whole model.');
});
