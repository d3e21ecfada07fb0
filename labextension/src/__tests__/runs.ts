import { ApiError, type IApi, type IRun, type IVersion } from '../api';

/** A run as the server lists it. */
export function run(id: string, more: Partial<IRun> = {}): IRun {
  return {
    id,
    name: `name of ${id}`,
    state: 'running',
    step: 93,
    total: 141,
    created: 1000,
    reason: null,
    ...more
  };
}

/** A server whose answers a test sets. */
export class FakeApi implements IApi {
  answer: IVersion = {
    llf: '0.1.0',
    formats: [1],
    home: 'ab',
    folder: '~/.llf/runs',
    training: true
  };
  all: IRun[] = [];
  down: ApiError | null = null;
  asked: string[] = [];

  async version(): Promise<IVersion> {
    this.asked.push('version');
    if (this.down) {
      throw this.down;
    }
    return this.answer;
  }

  async runs(limit: number): Promise<{ total: number; runs: IRun[] }> {
    this.asked.push(`runs ${limit}`);
    if (this.down) {
      throw this.down;
    }
    return { total: this.all.length, runs: this.all.slice(0, limit) };
  }
}
