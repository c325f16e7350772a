// The grammar, after xl.cfg(5), "SYNTAX", and what xl's own parser takes:
//
//   file       = { [ assignment ] ( newline | ";" ) }
//   assignment = key ( "=" | "+=" ) value
//   value      = string | number | "[" [ value { "," value } [ "," ] ] "]"
//
// `#` starts a comment; within brackets a newline is a blank. We take a little more than xl does:
// a last line without a newline, carriage returns before newlines, octal escapes that are octal.
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "vmm/cli/config/text.h"
#include "vmm/cli/config/xlcfg.h"

namespace vmm::config {
namespace {

constexpr int kEnd = -1;

bool is_digit(int c) {
    return c >= '0' && c <= '9';
}
bool is_lower(int c) {
    return c >= 'a' && c <= 'z';
}
bool is_upper(int c) {
    return c >= 'A' && c <= 'Z';
}
bool is_word(int c) {
    return is_lower(c) || is_upper(c) || is_digit(c) || c == '_';
}
// In either case; 16 for what is no digit at all.
unsigned digit_value(int c) {
    if (is_digit(c)) return static_cast<unsigned>(c - '0');
    if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
    if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
    return 16;
}

class Parser {
  public:
    Parser(std::string path, std::string_view text) : text_(text) { file_.path = std::move(path); }

    Result<XlFile> run() {
        for (;;) {
            skip_blanks();
            if (peek() == kEnd) return std::move(file_);
            if (peek() == '\n' || peek() == ';') {
                take();
                continue;
            }
            TRY(assignment());
            skip_blanks();
            if (peek() != kEnd && peek() != '\n' && peek() != ';') {
                return fail("the value ends before " + here());
            }
        }
    }

  private:
    int peek(std::size_t ahead = 0) const {
        return at_ + ahead < text_.size() ? static_cast<unsigned char>(text_[at_ + ahead]) : kEnd;
    }
    int take() {
        const int c = peek();
        if (c == '\n') ++line_;
        if (c != kEnd) ++at_;
        return c;
    }
    bool take_if(int wanted) {
        if (peek() != wanted) return false;
        take();
        return true;
    }

    void skip_blanks() {
        for (;;) {
            const int c = peek();
            if (c == '#') {
                while (peek() != '\n' && peek() != kEnd)
                    take();
            } else if (c == ' ' || c == '\t' || (c == '\r' && peek(1) == '\n')) {
                take();
            } else {
                return;
            }
        }
    }
    void skip_blanks_and_newlines() {
        do {
            skip_blanks();
        } while (take_if('\n'));
    }

    Failure<Error> fail(const std::string& what) const { return fail(line_, what); }
    Failure<Error> fail(unsigned line, const std::string& what) const {
        return user_error(file_.path + ":" + std::to_string(line) + ": " + what);
    }
    // The word or the character that we stand at, for messages.
    std::string here() const {
        if (peek() == kEnd) return "the end of the file";
        if (peek() == '\n') return "the end of the line";
        std::size_t length = 0;
        while (is_word(peek(length)))
            ++length;
        return in_quotes(text_.substr(at_, length == 0 ? 1 : length));
    }

    std::string_view word() {
        const std::size_t start = at_;
        while (is_word(peek()))
            take();
        return text_.substr(start, at_ - start);
    }

    Result<void> assignment() {
        const unsigned line = line_;
        if (is_upper(peek()) || peek() == '_') {
            return fail(here() + " is not a key: keys start with a lower-case letter");
        }
        if (!is_lower(peek())) return fail("a line starts with a key, not with " + here());
        const std::string_view key = word();
        skip_blanks();
        const bool append = peek() == '+' && peek(1) == '=';
        if (append) take();
        if (!take_if('='))
            return fail("'=' is missing between " + in_quotes(key) + " and " + here());
        skip_blanks();
        XlValue value = TRY(this->value(0));
        return append ? extend(key, std::move(value), line) : store(key, std::move(value), line);
    }

    Result<void> store(std::string_view key, XlValue value, unsigned line) {
        const auto [known, is_new] = index_.try_emplace(key, file_.settings.size());
        if (is_new) {
            file_.settings.push_back({std::string(key), std::move(value), line});
            return {};
        }
        XlSetting& setting = file_.settings[known->second];
        if (warned_.insert(key).second) {  // once per key, however often it is repeated
            file_.warnings.push_back(file_.path + ":" + std::to_string(line) + ": " +
                                     in_quotes(key) + " is set again: line " +
                                     std::to_string(setting.line) + " no longer counts");
        }
        setting.value = std::move(value);
        setting.line = line;
        return {};
    }

    Result<void> extend(std::string_view key, XlValue value, unsigned line) {
        const auto wrong = [&](const char* what) {
            return fail(line, in_quotes(key) + " += " + what);
        };
        if (std::holds_alternative<XlValue::Number>(value.data)) {
            return wrong("joins strings or lists, not numbers");
        }
        const auto known = index_.find(key);
        if (known == index_.end()) return store(key, std::move(value), line);

        XlValue& old = file_.settings[known->second].value;
        if (old.data.index() != value.data.index()) {
            return wrong("needs what the key already has: a string or a list");
        }
        if (auto* const text = std::get_if<std::string>(&old.data)) {
            *text += std::get<std::string>(value.data);
        } else {
            auto& more = std::get<XlList>(value.data);
            auto& list = std::get<XlList>(old.data);
            for (XlValue& item : more)
                list.push_back(std::move(item));
        }
        file_.settings[known->second].line = line;
        return {};
    }

    Result<XlValue> value(unsigned depth) {
        XlValue value;
        value.line = line_;
        const int c = peek();
        if (c == '\'' || c == '"') {
            value.data = TRY(string());
        } else if (c == '[') {
            value.data = TRY(list(depth));
        } else if (is_digit(c) || (c == '-' && is_digit(peek(1)))) {
            value.data = TRY(number());
        } else {
            return fail("a value is a string, a number or a list, not " + here());
        }
        return value;
    }

    Result<XlValue::Number> number() {
        const std::size_t start = at_;
        take();
        // A point belongs to the word so that 1.5 is refused whole.
        while (is_word(peek()) || peek() == '.')
            take();
        const std::string_view text = text_.substr(start, at_ - start);
        if (!is_number(text)) {
            return fail(in_quotes(text) + " is not a number; anything else needs quotes");
        }
        return XlValue::Number{std::string(text)};
    }

    Result<XlList> list(unsigned depth) {
        const unsigned line = line_;
        if (depth == kMaxListDepth) {
            return fail("lists are nested deeper than " + std::to_string(kMaxListDepth));
        }
        take();  // the bracket
        XlList items;
        for (;;) {
            skip_blanks_and_newlines();
            if (take_if(']')) return items;
            // Named here: from within an item the operator would hear of the last line of the file.
            if (peek() == kEnd) return fail(line, "this list has no end: ']' is missing");
            items.push_back(TRY(value(depth + 1)));
            skip_blanks_and_newlines();
            if (peek() == kEnd) return fail(line, "this list has no end: ']' is missing");
            if (peek() != ']' && !take_if(',')) {
                return fail("',' or ']' is missing in a list before " + here());
            }
        }
    }

    Result<std::string> string() {
        const int quote = take();
        std::string text;
        for (;;) {
            const int c = peek();
            if (c == kEnd || c == '\n') {
                return fail("this string has no end: " + std::string(1, static_cast<char>(quote)) +
                            " is missing");
            }
            if (c == '\0') return fail("a string cannot have a NUL byte in it");
            take();
            if (c == quote) return text;
            text += c == '\\' ? TRY(escaped()) : static_cast<char>(c);
        }
    }

    // What a backslash and the characters after it stand for.
    Result<char> escaped() {
        const int c = peek();
        switch (c) {
            case '"':
            case '\'':
            case '\\': take(); return static_cast<char>(c);
            case 'a': take(); return '\a';
            case 'b': take(); return '\b';
            case 'f': take(); return '\f';
            case 'n': take(); return '\n';
            case 'r': take(); return '\r';
            case 't': take(); return '\t';
            case 'v': take(); return '\v';
            case 'x': take(); return character_code(16, 2);
            default: break;
        }
        if (c >= '0' && c <= '7') return character_code(8, 3);
        return fail("in a string, '\\' cannot stand before " + here());
    }

    Result<char> character_code(unsigned base, unsigned longest) {
        unsigned code = 0;
        unsigned digits = 0;
        while (digits < longest && digit_value(peek()) < base) {
            code = code * base + digit_value(take());
            ++digits;
        }
        if (digits == 0 || (base == 16 && digits != longest) || code == 0 || code > UINT8_MAX) {
            return fail("a string has a character code that is incomplete, zero or above 255");
        }
        return static_cast<char>(code);
    }

    std::string_view text_;
    std::size_t at_ = 0;
    unsigned line_ = 1;
    XlFile file_;
    // Keys point into text_.
    std::unordered_map<std::string_view, std::size_t> index_;
    std::unordered_set<std::string_view> warned_;
};

}  // namespace

Result<XlFile> parse_xl(std::string path, std::string_view text) {
    return Parser(std::move(path), text).run();
}

}  // namespace vmm::config
