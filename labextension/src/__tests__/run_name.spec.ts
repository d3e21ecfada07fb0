import { expect, it } from 'vitest';

import { splitNames } from '../run_name';

it.each<[string[], string[]]>([
  [
    ['smollm2 sft lr 3e-3 seed 1', 'smollm2 sft lr 1e-3 seed 1', 'other'],
    ['smollm2 sft |lr 3e-3 seed 1', 'smollm2 sft |lr 1e-3 seed 1', '|other']
  ],
  [
    [
      'base-model lr=1e-3 rank=8',
      'base-model lr=1e-3 rank=16',
      'base-model lr=3e-3 rank=8'
    ],
    [
      'base-model |lr=1e-3 |rank=8',
      'base-model |lr=1e-3 |rank=16',
      'base-model |lr=3e-3 rank=8'
    ]
  ],
  [
    ['experiment 12', 'experiment 120', 'experiment 297 again'],
    ['experiment |12', 'experiment |120', 'experiment |297 again']
  ],
  [
    ['smollm2-sft-lora-lr3e-3', 'smollm2-sft-lora-lr3e-4'],
    ['smollm2-sft-lora-|lr3e-3', 'smollm2-sft-lora-|lr3e-4']
  ],
  [['wwwwwwwwwwwwwwww'], ['wwwwwwww|wwwwwwww']],
  [
    ['short', ''],
    ['|short', '']
  ],
  [['🦙🦙🦙🦙🦙🦙🦙🦙🦙🦙'], ['🦙🦙|🦙🦙🦙🦙🦙🦙🦙🦙']]
])('splits %j', (names, expected) => {
  const parts = splitNames(names);
  const found = names.map(name => parts.get(name)!);
  expect(found.map(one => one.join(''))).toEqual(names);
  expect(
    found.map(([head, middle, tail]) =>
      [...(head || tail ? [head] : []), ...(middle ? [middle] : []), tail].join(
        '|'
      )
    )
  ).toEqual(expected);
});

it('is quick with many long names', () => {
  const names = Array.from(
    { length: 200 },
    (_, at) => `${'w'.repeat(700)} ${at}`
  );
  const before = performance.now();
  splitNames(names);
  expect(performance.now() - before).toBeLessThan(5000); // also on a machine that others use
});
