/* Which files a model needs: the hub's list, cut down to what can be run. */
#include "base/buf.h"
#include "base/mem.h"
#include "hub/cache.h"
#include "hub/index.h"
#include "hub/names.h"
#include "hub/pull.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LIST_BYTES = 64 << 20, MAX_FILES = 100000, MAX_HOPS = 5 };

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static bool is_weights(const char *name)
{
    size_t n = strlen(name);
    return n > 12 && !strcmp(name + n - 12, ".safetensors");
}

/* Files of the top folder that a model is run from; weights are looked at later. */
static bool is_wanted(const char *name)
{
    static const char *const exact[] = {
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        HB_INDEX_FILE,
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
    };
    if (strchr(name, '/')) return false;
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
        if (!strcmp(name, exact[i])) return true;
    return starts_with(name, "tokenizer") || starts_with(name, "chat_template") || is_weights(name);
}

/* GET the list, following redirects (a renamed repository). */
static fm_status get_list(hb_client *client, const hb_id *id, hb_reply *reply, fm_error *err)
{
    char *revision = hb_url_encode(id->revision, false);
    char *url = revision ? bs_sprintf("%s/api/models/%s/revision/%s?blobs=true",
                                      client->config->endpoint, id->repo, revision)
                         : NULL;
    bs_free(revision);
    fm_status status = url ? FM_OK : fm_fail_nomem(err, "asking for the list of files");
    for (int hops = 0; !status; hops++) {
        status =
            hb_request(client, &(hb_query){.url = url, .max_body = MAX_LIST_BYTES}, reply, err);
        if (status || reply->status == 200) break;
        if (reply->status >= 300 && reply->status < 400 && reply->redirect && hops < MAX_HOPS &&
            hb_redirect_allowed(url, reply->redirect)) {
            bs_free(url);
            url = reply->redirect;
            reply->redirect = NULL;
            hb_reply_free(reply);
            continue;
        }
        status = hb_fail_status(client, reply->status, &reply->headers, "the list of files", err);
        hb_reply_free(reply);
    }
    bs_free(url);
    return status;
}

static int by_weights_then_name(const void *a, const void *b)
{
    const hb_file *x = a, *y = b;
    if (x->weights != y->weights) return x->weights - y->weights;
    return strcmp(x->name, y->name);
}

static fm_status add_file(hb_survey *s, json_t *entry, size_t i, fm_error *err)
{
    const char *name = json_string_value(json_object_get(entry, "rfilename"));
    json_t *size = json_object_get(entry, "size");
    if (!name || strlen(name) != json_string_length(json_object_get(entry, "rfilename")) ||
        !hb_is_safe_path(name)) /* not printed: it may hold anything */
        return fm_fail(err, FM_E_FORMAT,
                       "%s: file %zu of the hub's list has a name that is no path inside the "
                       "model's folder; nothing was fetched",
                       s->id.repo, i);
    if (!is_wanted(name)) return FM_OK;
    hb_file *file = &s->files[s->n_files];
    *file =
        (hb_file){.name = bs_strdup(name), .weights = is_weights(name), .size = HB_SIZE_UNKNOWN};
    if (!file->name) return fm_fail_nomem(err, "listing files");
    s->n_files++;
    if (json_is_integer(size) && json_integer_value(size) >= 0)
        file->size = (uint64_t)json_integer_value(size);
    return FM_OK;
}

static fm_status read_list(hb_survey *s, const bs_buf *body, fm_error *err)
{
    json_error_t where;
    json_t *root = json_loadb(body->data ? body->data : "", body->length, 0, &where);
    json_t *list = json_object_get(root, "siblings");
    const char *commit = json_string_value(json_object_get(root, "sha"));
    fm_status status = FM_OK;
    if (!root || !json_is_array(list) || !commit || !hb_is_commit(commit))
        status = fm_fail(err, FM_E_FORMAT, "%s: the hub's list of files is malformed (%s)",
                         s->id.repo, root ? "no commit or no files" : where.text);
    else if (json_array_size(list) > MAX_FILES)
        status = fm_fail(err, FM_E_LIMIT, "%s: more than %d files", s->id.repo, MAX_FILES);
    if (!status) {
        snprintf(s->commit, sizeof s->commit, "%s", commit);
        s->files = bs_calloc(json_array_size(list), sizeof *s->files);
        if (!s->files) status = fm_fail_nomem(err, "listing files");
    }
    for (size_t i = 0; !status && i < json_array_size(list); i++)
        status = add_file(s, json_array_get(list, i), i, err);
    if (!status) qsort(s->files, s->n_files, sizeof *s->files, by_weights_then_name);
    json_decref(root);
    return status;
}

static hb_file *find_file(hb_survey *s, const char *name)
{
    for (size_t i = 0; i < s->n_files; i++)
        if (!strcmp(s->files[i].name, name)) return &s->files[i];
    return NULL;
}

typedef struct shard_search {
    hb_survey *survey;
    bool *named; /* for each file */
} shard_search;

static bool mark_shard(void *arg, const char *shard)
{
    shard_search *search = arg;
    hb_file *file = find_file(search->survey, shard);
    if (file) search->named[file - search->survey->files] = true;
    return file && file->weights;
}

/* With an index, only the shards that it names; another copy of the weights in one file, say, is
 * not needed. */
static fm_status drop_unnamed_weights(hb_survey *s, fm_error *err)
{
    if (!find_file(s, HB_INDEX_FILE)) return FM_OK;
    char *path = bs_sprintf("%s/" HB_INDEX_FILE, s->folder);
    shard_search search = {s, bs_calloc(s->n_files, sizeof *search.named)};
    fm_status status = FM_OK;
    if (!path || !search.named) status = fm_fail_nomem(err, "choosing the shards");
    if (!status) status = hb_index_each_shard(path, mark_shard, &search, err);
    size_t kept = 0;
    for (size_t i = 0; !status && i < s->n_files; i++) {
        if (s->files[i].weights && !search.named[i]) bs_free(s->files[i].name);
        else s->files[kept++] = s->files[i];
    }
    if (!status) s->n_files = kept;
    bs_free(search.named);
    bs_free(path);
    return status;
}

/* Sizes that the list did not tell, and what is there already. */
static fm_status add_up(hb_client *client, hb_survey *s, fm_error *err)
{
    size_t n_weights = 0;
    for (size_t i = 0; i < s->n_files; i++) {
        hb_file *file = &s->files[i];
        hb_meta meta = {.size = file->size};
        fm_status status = FM_OK;
        n_weights += file->weights;
        file->cached = hb_is_linked(s, file, &file->size);
        if (!file->cached && file->size == HB_SIZE_UNKNOWN) {
            status = hb_file_meta(client, s->commit, file->name, &meta, err);
            file->size = meta.size;
            hb_meta_free(&meta);
        }
        if (status) return status;
        if (__builtin_add_overflow(s->total_bytes, file->size, &s->total_bytes) ||
            s->total_bytes > INT64_MAX)
            return fm_fail(err, FM_E_LIMIT, "%s: the sizes of its files add up to more than 2^63",
                           s->id.repo);
        if (!file->cached) s->missing_bytes += file->size;
    }
    if (n_weights) return FM_OK;
    return fm_fail(err, FM_E_NOT_FOUND,
                   "%s: has no *.safetensors weights, so it cannot be run here", s->id.repo);
}

static fm_status survey(hb_client *client, const hb_repo *repo, hb_survey *s, fm_error *err)
{
    hb_reply list;
    fm_status status = get_list(client, &s->id, &list, err);
    if (status) return status;
    status = read_list(s, &list.body, err);
    hb_reply_free(&list);
    if (status) return status;
    if (!find_file(s, "config.json"))
        return fm_fail(err, FM_E_NOT_FOUND,
                       "%s: has no config.json, so it is no model that can be "
                       "run here",
                       s->id.repo);
    s->folder = hb_repo_snapshot(repo, s->commit);
    if (!s->folder) return fm_fail_nomem(err, "naming the snapshot");
    status = hb_repo_make(repo, err);
    for (size_t i = 0; i < s->n_files && !status; i++) {
        const char *name = s->files[i].name;
        if (!strcmp(name, "config.json") || !strcmp(name, HB_INDEX_FILE))
            status = hb_get_file(client, repo, s, &s->files[i], NULL, NULL, err);
    }
    char known[HB_HASH_MAX];
    if (!status && hb_repo_read_ref(repo, s->id.revision, known, NULL) != FM_OK)
        status = hb_repo_write_ref(repo, s->id.revision, s->commit, err);
    if (!status) status = drop_unnamed_weights(s, err);
    if (!status) status = add_up(client, s, err);
    return status;
}

fm_status hb_survey_model(const hb_config *c, const hb_id *id, const hb_hooks *hooks,
                          hb_survey *out, fm_error *err)
{
    *out = (hb_survey){.id = *id};
    if (c->offline)
        return fm_fail(err, FM_E_NETWORK,
                       "%s is not in the cache and HF_HUB_OFFLINE forbids asking the hub",
                       id->repo);
    hb_client client;
    hb_repo repo;
    fm_status status = hb_repo_open(c, id->repo, &repo, err);
    if (status) return status;
    status = hb_client_open(c, out->id.repo, hooks, &client, err);
    if (!status) status = survey(&client, &repo, out, err);
    hb_client_close(&client);
    hb_repo_close(&repo);
    if (status) hb_survey_free(out);
    return status;
}

void hb_survey_free(hb_survey *s)
{
    for (size_t i = 0; i < s->n_files; i++) bs_free(s->files[i].name);
    bs_free(s->files);
    bs_free(s->folder);
    *s = (hb_survey){0};
}
