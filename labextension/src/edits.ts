import type { TranslationBundle } from '@jupyterlab/translation';

import { ApiError, type IMeta, type IRun } from './api';
import { askForm, FieldError, type IField, type Values } from './dialogs';
import { called } from './format';
import type { RunsModel } from './model';

/** How long a name may be, and how many tags there may be how long; the server refuses more. */
const NAME_LENGTH = 200;
const TAG_LENGTH = 60;
const MOST_TAGS = 20;
const NOTE_ROWS = 8;

type Change = Partial<Pick<IMeta, 'name' | 'tags' | 'note'>>;

/** Has somebody change the name of a run, its tags or its note. */
export class Edits {
  constructor(
    private _model: RunsModel,
    private _trans: TranslationBundle
  ) {}

  /** Changes the name. */
  rename(run: IRun): Promise<void> {
    const trans = this._trans;
    return this._edit(
      run,
      trans.__('Rename run'),
      meta => ({ name: 'name', label: trans.__('Name'), value: meta.name }),
      ({ name }) => {
        if (!name || name.length > NAME_LENGTH) {
          throw new FieldError(
            'name',
            trans.__(
              'The name has %1 characters. Expected 1 to %2.',
              name.length,
              NAME_LENGTH
            )
          );
        }
        return { name };
      }
    );
  }

  /** Changes the note. */
  note(run: IRun): Promise<void> {
    const trans = this._trans;
    return this._edit(
      run,
      trans.__('Edit note'),
      meta => ({
        name: 'note',
        label: trans.__('Note'),
        value: meta.note,
        rows: NOTE_ROWS
      }),
      ({ note }) => ({ note })
    );
  }

  /** Changes the tags of one run, or adds tags to several and takes tags from them. */
  tags(runs: readonly IRun[]): Promise<void> {
    const trans = this._trans;
    if (runs.length > 1) {
      return this._tagsOf(runs);
    }
    return this._edit(
      runs[0],
      trans.__('Edit tags'),
      meta => ({
        name: 'tags',
        label: trans.__('Tags, separated by commas'),
        value: meta.tags.join(', ')
      }),
      ({ tags }) => ({ tags: this._check('tags', words(tags)) })
    );
  }

  private async _edit(
    run: IRun,
    title: string,
    field: (meta: IMeta) => IField,
    read: (values: Values) => Change
  ): Promise<void> {
    const { _model: model, _trans: trans } = this;
    let meta: IMeta;
    try {
      meta = await model.api.meta(run.id);
    } catch (error) {
      await model.act(() => Promise.reject(error));
      return;
    }
    const changed = await askForm({
      title,
      accept: trans.__('Save'),
      fields: [field(meta)],
      submit: async values => {
        const change = { revision: meta.revision, ...read(values) };
        try {
          await model.api.change(run.id, change);
        } catch (error) {
          if (!(error instanceof ApiError && error.status === 409)) {
            throw error;
          }
          meta = await model.api.meta(run.id);
          const { value } = field(meta);
          throw new Error(
            trans.__(
              'It was changed to “%1” in another view. Save again to overwrite it.',
              value ?? ''
            )
          );
        }
      }
    });
    if (changed) {
      await model.act(async () => trans.__('Saved.'));
    }
  }

  private async _tagsOf(runs: readonly IRun[]): Promise<void> {
    const { _model: model, _trans: trans } = this;
    const counts = new Map<string, number>();
    for (const tag of runs.flatMap(run => run.tags)) {
      counts.set(tag, (counts.get(tag) ?? 0) + 1);
    }
    const there = Array.from(counts).sort(([one], [other]) =>
      one.localeCompare(other)
    );
    let add: string[] = [];
    let remove = new Set<string>();
    const wanted = await askForm({
      title: trans.__('Edit tags of %1 runs', runs.length),
      accept: trans.__('Save'),
      fields: [
        { name: 'add', label: trans.__('Add tags, separated by commas') },
        ...there.map(([tag, count], place) => ({
          name: `remove ${place}`,
          label: trans._n(
            'Remove “%2” from %1 run',
            'Remove “%2” from %1 runs',
            count,
            tag
          ),
          check: true
        }))
      ],
      submit: async values => {
        add = this._check('add', words(values.add));
        remove = new Set(
          there
            .filter((_, place) => values[`remove ${place}`])
            .map(([tag]) => tag)
        );
        if (!add.length && !remove.size) {
          throw new FieldError('add', trans.__('No tags to add or remove.'));
        }
      }
    });
    if (wanted) {
      await model.each(
        runs,
        run =>
          this._retag(run, tags => [
            ...tags.filter(tag => !remove.has(tag) && !add.includes(tag)),
            ...add
          ]),
        done =>
          trans._n(
            'Changed the tags of %1 run.',
            'Changed the tags of %1 runs.',
            done.length
          )
      );
    }
  }

  /** Changes the tags of a run, again where somebody else changed them meanwhile. */
  private async _retag(
    run: IRun,
    change: (tags: string[]) => string[]
  ): Promise<void> {
    const { api } = this._model;
    for (let attempt = 1; ; attempt++) {
      const { revision, tags } = await api.meta(run.id);
      try {
        await api.change(run.id, { revision, tags: change(tags) });
        return;
      } catch (error) {
        const stale = error instanceof ApiError && error.status === 409;
        if (!stale || attempt === 3) {
          throw error;
        }
      }
    }
  }

  /** @throws {FieldError} where there are too many, or one is too long */
  private _check(field: string, tags: string[]): string[] {
    const trans = this._trans;
    const long = tags.find(tag => tag.length > TAG_LENGTH);
    if (long !== undefined) {
      throw new FieldError(
        field,
        trans.__(
          'The tag “%1” has %2 characters. Expected at most %3.',
          called({ id: '', name: long }),
          long.length,
          TAG_LENGTH
        )
      );
    }
    if (tags.length > MOST_TAGS) {
      throw new FieldError(
        field,
        trans.__('%1 tags. Expected at most %2.', tags.length, MOST_TAGS)
      );
    }
    return tags;
  }
}

/** What stands between commas, each once. */
function words(text: string): string[] {
  const found = text.split(',').map(word => word.trim());
  return Array.from(new Set(found.filter(Boolean)));
}
