import type { TranslationBundle } from '@jupyterlab/translation';

import { ApiError, type IMeta, type IRun } from './api';
import {
  showFormDialog,
  FieldError,
  type IFormField,
  type FormValues
} from './form_dialog';
import { displayName } from './format';
import type { RunsModel } from './model';

/** Limits of the server, in characters and number of tags. */
const MAX_NAME_LENGTH = 200;
const MAX_TAG_LENGTH = 60;
const MAX_TAGS = 20;
const NOTE_ROWS = 8;

type MetaChange = Partial<Pick<IMeta, 'name' | 'tags' | 'note'>>;

/** Dialogs that change the name, the tags and the note of runs. */
export class MetaEditor {
  constructor(
    private _model: RunsModel,
    private _trans: TranslationBundle
  ) {}

  /** Asks for a new name of a run. */
  rename(run: IRun): Promise<void> {
    const trans = this._trans;
    return this._edit(
      run,
      trans.__('Rename run'),
      meta => ({ name: 'name', label: trans.__('Name'), value: meta.name }),
      ({ name }) => {
        if (!name || name.length > MAX_NAME_LENGTH) {
          throw new FieldError(
            'name',
            trans.__(
              'The name has %1 characters. Expected 1 to %2.',
              name.length,
              MAX_NAME_LENGTH
            )
          );
        }
        return { name };
      }
    );
  }

  /** Asks for a new note of a run. */
  editNote(run: IRun): Promise<void> {
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

  /** Asks for the tags of one run, or for tags to add to and remove from several runs. */
  editTags(runs: readonly IRun[]): Promise<void> {
    const trans = this._trans;
    if (runs.length > 1) {
      return this._editTagsOfRuns(runs);
    }
    return this._edit(
      runs[0],
      trans.__('Edit tags'),
      meta => ({
        name: 'tags',
        label: trans.__('Tags, separated by commas'),
        value: meta.tags.join(', ')
      }),
      ({ tags }) => ({ tags: this._validateTags('tags', parseTags(tags)) })
    );
  }

  private async _edit(
    run: IRun,
    title: string,
    field: (meta: IMeta) => IFormField,
    read: (values: FormValues) => MetaChange
  ): Promise<void> {
    const { _model: model, _trans: trans } = this;
    let meta: IMeta;
    try {
      meta = await model.api.runMeta(run.id);
    } catch (error) {
      await model.showError(error);
      return;
    }
    const changed = await showFormDialog({
      title,
      acceptLabel: trans.__('Save'),
      fields: [field(meta)],
      submit: async values => {
        const change = { revision: meta.revision, ...read(values) };
        try {
          await model.api.updateMeta(run.id, change);
        } catch (error) {
          if (!(error instanceof ApiError && error.status === 409)) {
            throw error;
          }
          meta = await model.api.runMeta(run.id);
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
      await model.runAction(async () => trans.__('Saved.'));
    }
  }

  private async _editTagsOfRuns(runs: readonly IRun[]): Promise<void> {
    const { _model: model, _trans: trans } = this;
    const counts = new Map<string, number>();
    for (const tag of runs.flatMap(run => run.tags)) {
      counts.set(tag, (counts.get(tag) ?? 0) + 1);
    }
    const existing = Array.from(counts).sort(([one], [other]) =>
      one.localeCompare(other)
    );
    let add: string[] = [];
    let remove = new Set<string>();
    const accepted = await showFormDialog({
      title: trans.__('Edit tags of %1 runs', runs.length),
      acceptLabel: trans.__('Save'),
      fields: [
        { name: 'add', label: trans.__('Add tags, separated by commas') },
        ...existing.map(([tag, count], index): IFormField => ({
          name: `remove ${index}`,
          label: trans._n(
            'Remove “%2” from %1 run',
            'Remove “%2” from %1 runs',
            count,
            tag
          ),
          checkbox: true
        }))
      ],
      submit: async values => {
        add = this._validateTags('add', parseTags(values.add));
        remove = new Set(
          existing
            .filter((_, index) => values[`remove ${index}`])
            .map(([tag]) => tag)
        );
        if (!add.length && !remove.size) {
          throw new FieldError('add', trans.__('No tags to add or remove.'));
        }
      }
    });
    if (accepted) {
      await model.runForEach(
        runs,
        run =>
          this._updateTags(run, tags => [
            ...tags.filter(tag => !remove.has(tag) && !add.includes(tag)),
            ...add
          ]),
        changed =>
          trans._n(
            'Changed the tags of %1 run.',
            'Changed the tags of %1 runs.',
            changed.length
          )
      );
    }
  }

  /** Changes the tags of a run, and tries again if another view changed them at the same time. */
  private async _updateTags(
    run: IRun,
    change: (tags: string[]) => string[]
  ): Promise<void> {
    const { api } = this._model;
    for (let attempt = 1; ; attempt++) {
      const { revision, tags } = await api.runMeta(run.id);
      try {
        await api.updateMeta(run.id, { revision, tags: change(tags) });
        return;
      } catch (error) {
        const stale = error instanceof ApiError && error.status === 409;
        if (!stale || attempt === 3) {
          throw error;
        }
      }
    }
  }

  /**
   * Returns the tags unchanged.
   *
   * @throws {FieldError} if there are too many tags or one is too long
   */
  private _validateTags(field: string, tags: string[]): string[] {
    const trans = this._trans;
    const long = tags.find(tag => tag.length > MAX_TAG_LENGTH);
    if (long !== undefined) {
      throw new FieldError(
        field,
        trans.__(
          'The tag “%1” has %2 characters. Expected at most %3.',
          displayName({ id: '', name: long }),
          long.length,
          MAX_TAG_LENGTH
        )
      );
    }
    if (tags.length > MAX_TAGS) {
      throw new FieldError(
        field,
        trans.__('%1 tags. Expected at most %2.', tags.length, MAX_TAGS)
      );
    }
    return tags;
  }
}

/** Splits a text at its commas and removes duplicates. */
function parseTags(text: string): string[] {
  const found = text.split(',').map(word => word.trim());
  return Array.from(new Set(found.filter(Boolean)));
}
