/* test_chat_jinja.c - the normal form of template texts: what matters to a rendering, no more. */
#include "common/text/chat_jinja.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void check_form(const char *jinja, const char *expected)
{
    struct buffer form = {0};

    chat_jinja_normalise(jinja, &form);
    assert_string_equal(buffer_text(&form), expected);
    buffer_deinit(&form);
}

static void minus_strips_text_towards_it(void **state)
{
    (void)state;
    check_form("a \n {%- if x -%} \n b {{- y -}} c", "a{%if x%}b{{y}}c");
    check_form("a \n {{ y }} \n b", "a \n {{y}} \n b");
}

static void blocks_lose_their_line(void **state)
{
    (void)state;
    check_form("  {% if x %}\n  b\n  {% endif %}\n\nc", "{%if x%}  b\n{%endif%}\nc");
    check_form("b  {% if x %}  c", "b  {%if x%}  c");
    check_form("{% if x %}\r\nb\r\nc{{ y }}\n", "{%if x%}b\nc{{y}}");
    check_form("{{ y }}  {% if x +%}\n  {%+ if z %}", "{{y}}  {%if x%}\n  {%if z%}");
    check_form("{% a %}\n  {% b %}", "{%a%}{%b%}");
}

static void comments_are_dropped(void **state)
{
    (void)state;
    check_form("a{# it's {{ gone }} #}b", "ab");
    check_form("  {#- x -#}  \n b", "b");
    check_form("  {# x #}\n b", " b");
}

static void blanks_in_tags_stay_between_words_only(void **state)
{
    (void)state;
    check_form("{% set  a = b [ 'x' ]  if not c\n%}", "{%set a=b[\x01x\x01]if not c%}");
    check_form("{{a|tojson}}", "{{a|tojson}}");
    check_form("{{ a - b }}", "{{a-b}}");
}

static void strings_get_one_kind_of_quotes(void **state)
{
    (void)state;
    check_form("{{ 'it\\'s' + \"it's\" + '}} %} \\n\n' }}",
               "{{\x01it's\x01+\x01it's\x01+\x01}} %} \\n\\n\x01}}");
}

static void any_text_has_a_form(void **state)
{
    (void)state;
    static const char *const broken[] = {"",    "{",      "{{",     "{%-",      "{#",    "{{ 'x",
                                         "\n",  "{%- -",  "{{ '\\", "{{ a -}",  "}}-%}", "{# -",
                                         "{{-", "a{{'}}", "{%%}",   "{%-%}{{}}"};

    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        chat_jinja_digest(broken[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(minus_strips_text_towards_it),
        cmocka_unit_test(blocks_lose_their_line),
        cmocka_unit_test(comments_are_dropped),
        cmocka_unit_test(blanks_in_tags_stay_between_words_only),
        cmocka_unit_test(strings_get_one_kind_of_quotes),
        cmocka_unit_test(any_text_has_a_form),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
