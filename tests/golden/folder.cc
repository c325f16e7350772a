// In a file of its own, the only one whose object depends on where the tree is.
#include "tests/golden/folder.h"

namespace golden {

std::string file(const std::string& name) {
    return XENOLITH_GOLDEN "/" + name;
}

}  // namespace golden
