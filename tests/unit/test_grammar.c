/* Grammars: what each schema accepts and refuses, random walks that must parse, hostile schemas. */
#include "engine/grammar.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static en_grammar *compile(const char *schema, fm_error *err)
{
    json_t *s = schema ? json_loads(schema, JSON_DECODE_ANY, NULL) : NULL;
    if (schema) assert_non_null(s);
    en_grammar *g = NULL;
    fm_status status = en_grammar_create(&(en_grammar_spec){.schema = s}, &g, err);
    json_decref(s);
    assert_int_equal(status == FM_OK, g != NULL);
    return g;
}

static bool accepts(const en_grammar *g, const char *text)
{
    en_matcher *m = NULL;
    assert_int_equal(en_matcher_create(g, NULL, &m, NULL), FM_OK);
    bool ok = en_matcher_accept_bytes(m, text, strlen(text)) && en_matcher_complete(m);
    en_matcher_destroy(m);
    return ok;
}

typedef struct acceptance {
    const char *schema;
    const char *good[12], *bad[12];
} acceptance;

static const acceptance cases[] = {
    {NULL,
     {"{}", "{\"a\":1}", "{ \"a\": [1, 2.5e-3, \"x\\n\\u00e9\", true, null, {}]}",
      "{\"\xc3\xa9\":0}", "{\"a\":\"\\ud83d\\ude00\"}"},
     {"", "[]", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{\"a\":01}", "{\"a\":\"\x01\"}",
      "{\"a\":\"\\ud83d\"}", "{\"a\":\"\\u0000\"}", "{\"a\":\"\xff\"}", "{\"a\":1}x",
      "{\"a\":1e999}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}"
     ","
     "\"c\":{\"type\":\"boolean\"}},\"required\":[\"b\"]}",
     {"{\"b\":\"\"}", "{\"a\":-3,\"b\":\"x\"}", "{\"a\":1, \"b\":\"x\", \"c\":true}",
      "{\"b\":\"\",\"c\":false}"},
     {"{}", "{\"a\":1}", "{\"b\":\"x\",\"a\":1}", "{\"a\":1.5,\"b\":\"\"}", "{\"b\":\"\",\"d\":1}",
      "{,\"b\":\"\"}", "{\"a\":1\"b\":\"\"}"}},
    {"{\"type\":\"object\",\"properties\":{\"ab\":{\"const\":1},\"ac\":{\"const\":2}},"
     "\"additionalProperties\":{\"type\":\"null\"}}",
     {"{}", "{\"ab\":1}", "{\"ab\":1,\"ac\":2}", "{\"x\":null}",
      "{\"ac\":2,\"a\":null,\"abc\":null}"},
     {"{\"ab\":null}", "{\"x\":1}", "{\"x\":null,\"ab\":1}"}},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},\"minProperties\":1,"
     "\"maxProperties\":2}",
     {"{\"a\":1}", "{\"a\":1,\"b\":2}"},
     {"{}", "{\"a\":1,\"b\":2,\"c\":3}", "{\"a\":\"x\"}"}},
    {"{\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"green\",3]},\"minItems\":1,\"maxItems\":"
     "3}",
     {"[\"red\"]", "[\"green\", 3]", "[3,3,3]"},
     {"[]", "[3,3,3,3]", "[\"blue\"]", "[3,]", "[,3]"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"integer\"}],"
     "\"items\":false,\"minItems\":2}",
     {"[\"a\",1]"},
     {"[]", "[\"a\"]", "[\"a\",1,2]"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}",
     {"[]", "[1]", "[1,2,3,4]"},
     {"[,]", "[\"a\"]"}},
    {"{\"type\":[\"string\",\"null\"],\"minLength\":2,\"maxLength\":3}",
     {"null", "\"ab\"", "\"\\u00e9\xc3\xa9x\""},
     {"\"a\"", "\"abcd\"", "1"}},
    {"{\"anyOf\":[{\"type\":\"integer\",\"minimum\":10,\"maximum\":230},{\"const\":\"none\"}]}",
     {"10", "99", "100", "230", "\"none\""},
     {"9", "231", "1000", "-10", "1", "10.0", "010"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":-12,\"maximum\":5}",
     {"-11", "-1", "0", "5"},
     {"-12", "6", "-111", "50"}},
    {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
     {"0", "1", "0.5", "0.999", "1.0", "1.000"},
     {"1.01", "2", "-0.1", "00", "0."}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0.25,\"exclusiveMaximum\":1.5}",
     {"0.26", "0.251", "1", "1.49", "0.3"},
     {"0.25", "0.2500", "1.5", "1.50", "0.2", "0", "1.51"}},
    {"{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}-\\\\d+(x|yz)?$\"}",
     {"\"AB-1\"", "\"XY-123yz\"", "\"AB-9x\""},
     {"\"A-1\"", "\"AB-\"", "\"AB-1y\"", "\"AB-1xx\""}},
    {"{\"type\":\"string\",\"pattern\":\"a.c\"}",
     {"\"abc\"", "\"xxa\\\"czz\""},
     {"\"ac\"", "\"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[^x]*$\"}", {"\"\"", "\"\\n\\\\\""}, {"\"x\"", "\"\n\""}},
    {"{\"type\":\"string\",\"format\":\"date-time\"}",
     {"\"2026-11-24T10:00:00Z\"", "\"2026-01-31T23:59:59.5+02:00\""},
     {"\"2026-13-24T10:00:00Z\"", "\"now\""}},
    {"{\"$ref\":\"#/$defs/"
     "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":"
     "\"integer\"},\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}]}},"
     "\"required\":[\"v\",\"next\"]}}}",
     {"{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}"},
     {"{\"v\":1}", "{\"v\":1,\"next\":{}}"}},
    {"{\"allOf\":[{\"const\":{\"a\":[1,\"\xc3\xa9\"]}}]}", {"{\"a\":[1,\"\xc3\xa9\"]}"}, {"{}"}},
};

static void test_language(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fm_error err = {0};
        en_grammar *g = compile(cases[i].schema, &err);
        if (!g) fail_msg("case %zu: %s", i, err.message);
        for (int k = 0; k < 12 && cases[i].good[k]; k++)
            if (!accepts(g, cases[i].good[k])) fail_msg("case %zu refuses %s", i, cases[i].good[k]);
        for (int k = 0; k < 12 && cases[i].bad[k]; k++)
            if (accepts(g, cases[i].bad[k])) fail_msg("case %zu accepts %s", i, cases[i].bad[k]);
        en_grammar_destroy(g);
    }
}

/* All numbers with up to three decimals around random bounds: the automaton against arithmetic. */
static void test_number_ranges(void **state)
{
    (void)state;
    srand(7);
    for (int round = 0; round < 40; round++) {
        double lo = (rand() % 4001 - 2000) / 100.0, hi = lo + (rand() % 2000) / 100.0;
        bool open = rand() % 2;
        char schema[200];
        snprintf(schema, sizeof schema, "{\"type\":\"number\",\"%s\":%.17g,\"maximum\":%.17g}",
                 open ? "exclusiveMinimum" : "minimum", lo, hi);
        fm_error err = {0};
        en_grammar *g = compile(schema, &err);
        if (!g) {
            assert_true(open && lo == hi);
            continue;
        }
        for (int k = -25000; k <= 45000; k += 1 + rand() % 900) {
            char text[32];
            double x = k / 1000.0;
            snprintf(text, sizeof text, "%.*f", k % 1000 ? 3 : 0, x);
            if (!strcmp(text, "-0")) continue;
            bool in = (open ? x > lo : x >= lo) && x <= hi;
            if (accepts(g, text) != in) fail_msg("%s: %s", schema, text);
        }
        en_grammar_destroy(g);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *schema, *says;
    } bad[] = {
        {"{\"not\":{}}", "'not' is not supported"},
        {"{\"type\":\"thing\"}", "no JSON type"},
        {"{\"properties\":{\"a\":{\"uniqueItems\":true}}}", "#/a: schema keyword 'uniqueItems'"},
        {"{\"$ref\":\"#/nowhere\"}", "points to nothing"},
        {"{\"$ref\":\"#\"}", "no finite value"},
        {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "without any content"},
        {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", "no finite value"},
        {"{\"pattern\":\"(a\"}", "not closed"},
        {"{\"pattern\":\"(?=a)\"}", "look-around"},
        {"{\"pattern\":\"a{1,2\"}", NULL},
        {"{\"pattern\":\"*\"}", "nothing to repeat"},
        {"{\"pattern\":\"[z-a]\"}", "reversed"},
        {"{\"enum\":[]}", "#/enum: must be"},
        {"{\"minItems\":-1}", "not negative"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "no finite value"},
        {"{\"type\":\"array\",\"items\":{\"minItems\":3,\"maxItems\":1}}", "at least minItems"},
        {"3", "must be an object"},
        {"{\"allOf\":[{},{}]}", "one entry"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fm_error err = {0};
        en_grammar *g = compile(bad[i].schema, &err);
        if (bad[i].says && g) fail_msg("accepted: %s", bad[i].schema);
        if (bad[i].says && !strstr(err.message, bad[i].says))
            fail_msg("%s said: %s", bad[i].schema, err.message);
        en_grammar_destroy(g);
    }
}

static void test_hostile_size(void **state)
{
    (void)state;
    char *deep = malloc(200000);
    size_t n = 0;
    for (int i = 0; i < 1000; i++) n += (size_t)sprintf(deep + n, "{\"items\":");
    n += (size_t)sprintf(deep + n, "{}");
    for (int i = 0; i < 1000; i++) deep[n++] = '}';
    deep[n] = 0;
    fm_error err = {0};
    assert_null(compile(deep, &err));
    assert_int_equal(err.code, FM_E_LIMIT);
    n = (size_t)sprintf(deep, "{\"pattern\":\"");
    for (int i = 0; i < 60000; i++) deep[n++] = '(';
    sprintf(deep + n, "\"}");
    assert_null(compile(deep, &err));
    free(deep);
    assert_null(compile("{\"pattern\":\"((((a{2000}){2000}){2000}){2000}){2000}\",\"minItems\":0,"
                        "\"items\":{\"type\":\"nothing\"}}",
                        &err));
}

/* --- tokens
 * --------------------------------------------------------------------------------------- */

static const char *const pieces[] = {
    "{",    "}",  "[",    "]",  "\"",   "\":",  ",",        "\": \"", "{\"", "\"}", "true",
    "null", " ",  "\n",   "a",  "name", "12",   "0",        "1",      "9",   "-",   ".",
    "e",    "\\", "\\u",  "00", "\xc3", "\xa9", "\xe2\x82", "\xac",   "E",   "},{", "]]",
    "red",  "d8", "fals", "n",  "m",    "d",    "c",        "u",      "l",   "f",   "s",
    "t",    "r",  ":",    "x",  "b",    "2",    "3"};
enum { N_PIECES = sizeof pieces / sizeof *pieces, END = N_PIECES };

static const char *piece(void *arg, int id, size_t *length)
{
    (void)arg;
    if (id == END) return NULL;
    *length = strlen(pieces[id]);
    return pieces[id];
}

static en_vocab *make_vocab(void)
{
    int32_t end = END;
    en_vocab *v = NULL;
    assert_int_equal(en_vocab_create(N_PIECES + 1, piece, NULL, &end, 1, &v, NULL), FM_OK);
    return v;
}

/* The mask must say exactly what walking each token's bytes says. */
static void check_mask(en_matcher *m, const uint32_t *bits, const en_grammar *g, const char *text)
{
    for (int id = 0; id < N_PIECES; id++) {
        char longer[5000];
        snprintf(longer, sizeof longer, "%s%s", text, pieces[id]);
        en_matcher *again = NULL;
        assert_int_equal(en_matcher_create(g, NULL, &again, NULL), FM_OK);
        bool ok = en_matcher_accept_bytes(again, longer, strlen(longer));
        assert_int_equal(bits[id / 32] >> (id % 32) & 1, ok);
        en_matcher_destroy(again);
    }
    assert_int_equal(bits[END / 32] >> (END % 32) & 1, en_matcher_complete(m));
}

static void walk(const char *schema, unsigned seed)
{
    fm_error err = {0};
    en_grammar *g = compile(schema, &err);
    en_vocab *v = make_vocab();
    en_matcher *m = NULL;
    assert_int_equal(en_matcher_create(g, v, &m, NULL), FM_OK);
    char text[4000] = "";
    srand(seed);
    bool ended = false;
    for (int step = 0; step < 700 && !ended && strlen(text) < 3900; step++) {
        const uint32_t *bits;
        if (en_matcher_mask(m, &bits, &err)) fail_msg("%s after %s", err.message, text);
        if (step < 3) check_mask(m, bits, g, text);
        int choice = END;
        bool can_end = bits[END / 32] >> (END % 32) & 1;
        if (!can_end || step < 20 || rand() % 4) { /* towards the end: prefer to close */
            int options[N_PIECES], n = 0;
            for (int id = 0; id < N_PIECES; id++)
                if (bits[id / 32] >> (id % 32) & 1) options[n++] = id;
            if (n == 0) assert_true(can_end);
            if (n > 0) choice = options[rand() % n];
            if (step > 60)
                for (int i = 0; i < n; i++)
                    if (strchr("}]\"", pieces[options[i]][0])) choice = options[i];
        }
        assert_int_equal(en_matcher_accept(m, choice, &err), FM_OK);
        if (choice == END) ended = true;
        else strcat(text, pieces[choice]);
    }
    if (ended) {
        json_error_t e;
        json_t *parsed = json_loads(text, JSON_DECODE_ANY, &e);
        if (!parsed) fail_msg("does not parse (%s): %s", e.text, text);
        json_decref(parsed);
    }
    en_matcher_destroy(m);
    en_vocab_destroy(v);
    en_grammar_destroy(g);
}

static void test_walks(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed < 60; seed++) {
        walk(NULL, seed);
        walk("{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"number\"}}}",
             seed);
        walk("{\"properties\":{\"name\":{\"type\":\"string\"},\"a\":{\"enum\":[\"red\",null]}},"
             "\"required\":[\"name\"],\"additionalProperties\":true}",
             seed);
    }
}

/* A vocabulary that cannot spell the format is an error, not an empty answer. */
static void test_no_token_fits(void **state)
{
    (void)state;
    en_grammar *g = compile("{\"const\":\"zzz\"}", NULL);
    en_vocab *v = make_vocab();
    en_matcher *m = NULL;
    const uint32_t *bits;
    fm_error err = {0};
    assert_int_equal(en_matcher_create(g, v, &m, NULL), FM_OK);
    assert_int_equal(en_matcher_mask(m, &bits, NULL), FM_OK);
    assert_int_equal(en_matcher_accept(m, 4, NULL), FM_OK);
    assert_int_equal(en_matcher_mask(m, &bits, &err), FM_E_UNSUPPORTED);
    en_matcher_destroy(m);
    en_vocab_destroy(v);
    en_grammar_destroy(g);
}

static void test_tools(void **state)
{
    (void)state;
    json_t *p = json_loads("{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"},"
                           "\"days\":{\"type\":\"integer\"}},\"required\":[\"city\"]}",
                           0, NULL);
    en_tool tools[] = {{"weather", p}, {"stop", NULL}};
    en_grammar_spec spec = {.tools = tools,
                            .n_tools = 2,
                            .many_calls = true,
                            .free_until = "</think>",
                            .call = {.before_name = "<t>{\"name\": \"",
                                     .before_args = "\", \"arguments\": ",
                                     .after_args = "}</t>",
                                     .between = "\n"}};
    en_grammar *g = NULL;
    assert_int_equal(en_grammar_create(&spec, &g, NULL), FM_OK);
    assert_true(accepts(g, "hm < </th </think>\n\n<t>{\"name\": \"weather\", \"arguments\": "
                           "{\"city\": \"Bern\"}}</t>"));
    assert_true(accepts(g, "</think><t>{\"name\": \"stop\", \"arguments\": {}}</t>\n"
                           "<t>{\"name\": \"stop\", \"arguments\": {}}</t>"));
    assert_false(accepts(g, "<t>{\"name\": \"stop\", \"arguments\": {}}</t>"));
    assert_false(accepts(g, "</think><t>{\"name\": \"weather\", \"arguments\": {}}</t>"));
    en_grammar_destroy(g);
    spec.free_until = NULL;
    spec.n_tools = 1;
    spec.call = (en_call_format){.before_name = "<f=",
                                 .before_args = ">\n",
                                 .after_args = "</f>",
                                 .param_open = "<p=",
                                 .param_name_end = ">",
                                 .param_close = "</p>\n"};
    assert_int_equal(en_grammar_create(&spec, &g, NULL), FM_OK);
    assert_true(accepts(g, "<f=weather>\n<p=city>a \"b\" <</p>\n<p=days>3</p>\n</f>"));
    assert_true(accepts(g, "<f=weather>\n<p=city></p>\n</f>"));
    assert_false(accepts(g, "<f=weather>\n<p=days>3</p>\n</f>"));
    en_grammar_destroy(g);
    spec.tools = &tools[1]; /* a list of calls */
    spec.call = (en_call_format){.list_open = "[",
                                 .before_name = "{\"name\": \"",
                                 .before_args = "\", \"arguments\": ",
                                 .after_args = "}",
                                 .between = ", ",
                                 .list_close = "]"};
    static const char two[] = "[{\"name\": \"stop\", \"arguments\": {}}, "
                              "{\"name\": \"stop\", \"arguments\": {}}]";
    assert_int_equal(en_grammar_create(&spec, &g, NULL), FM_OK);
    assert_true(accepts(g, "[{\"name\": \"stop\", \"arguments\": {}}]"));
    assert_true(accepts(g, two));
    assert_false(accepts(g, "[{\"name\": \"stop\", \"arguments\": {}}"));
    assert_false(accepts(g, "[]"));
    en_grammar_destroy(g);
    spec.many_calls = false;
    assert_int_equal(en_grammar_create(&spec, &g, NULL), FM_OK);
    assert_true(accepts(g, "[{\"name\": \"stop\", \"arguments\": {}}]"));
    assert_false(accepts(g, two));
    en_grammar_destroy(g);
    json_decref(p);
}

/* Every allocation may fail: an error each time, nothing lost. */
static void test_out_of_memory(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth < 400; nth++) {
        json_t *s = json_loads(cases[1].schema, 0, NULL);
        bs_mem_fail_at(nth, false);
        en_grammar *g = NULL;
        en_vocab *v = NULL;
        en_matcher *m = NULL;
        int32_t end = END;
        const uint32_t *bits;
        fm_status status = en_grammar_create(&(en_grammar_spec){.schema = s}, &g, NULL);
        if (!status) status = en_vocab_create(N_PIECES + 1, piece, NULL, &end, 1, &v, NULL);
        if (!status) status = en_matcher_create(g, v, &m, NULL);
        if (!status) status = en_matcher_mask(m, &bits, NULL);
        uint64_t made = bs_mem_fail_at(0, false);
        en_matcher_destroy(m);
        en_vocab_destroy(v);
        en_grammar_destroy(g);
        json_decref(s);
        if (made < nth) {
            assert_int_equal(status, FM_OK);
            return;
        }
        if (status) assert_int_equal(status, FM_E_NOMEM); /* a walk may also get by without */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_language), cmocka_unit_test(test_number_ranges),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_hostile_size),
        cmocka_unit_test(test_walks),    cmocka_unit_test(test_no_token_fits),
        cmocka_unit_test(test_tools),    cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
